//! The checksum of a message body.

/// CRC-64/ECMA-182 as OpenIGTLink uses it: polynomial `0x42f0e1eba9ea3693`, most significant
/// bit first, start and final value zero (protocol document, `header.md`). It is not the
/// reflected variant of the same polynomial that `xz` uses.
///
/// ```
/// assert_eq!(ultramotion_igtlink::crc64(b"123456789"), 0x6c40_df5f_0b49_7347);
/// assert_eq!(ultramotion_igtlink::crc64(b""), 0);
/// ```
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Ecma182, bytes)
}

#[cfg(test)]
mod tests {
    use super::crc64;
    use proptest::prelude::*;

    /// The definition, bit by bit.
    fn bitwise(bytes: &[u8]) -> u64 {
        let mut crc = 0u64;
        for &byte in bytes {
            crc ^= u64::from(byte) << 56;
            for _ in 0..8 {
                crc = if crc >> 63 == 1 { crc << 1 ^ 0x42f0_e1eb_a9ea_3693 } else { crc << 1 };
            }
        }
        crc
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..2000), skip in 0usize..16) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            prop_assert_eq!(crc64(bytes), bitwise(bytes));
        }
    }
}
