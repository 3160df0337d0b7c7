//! Chance by seed: the same frame has the same fate in every run.

/// What chance decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Roll {
    Jitter = 1,
    Drop,
    BadCrc,
    BadCrcPlace,
    Half,
    HalfPlace,
    Cut,
}

/// Dice that have no memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice {
    pub(crate) seed: u64,
}

impl Dice {
    /// At least 0, less than 1, for a message of a frame.
    pub(crate) fn roll(self, what: Roll, frame: u64, message: u64) -> f64 {
        let place = mix(mix(mix(self.seed) ^ frame) ^ (what as u64) << 32 ^ message);
        // The 53 bits of a float's fraction.
        (place >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether chance strikes at this share.
    pub(crate) fn strikes(self, share: f64, what: Roll, frame: u64, message: u64) -> bool {
        share > 0.0 && self.roll(what, frame, message) < share
    }

    /// At least 0, less than `count`.
    pub(crate) fn pick(self, count: usize, what: Roll, frame: u64, message: u64) -> usize {
        ((self.roll(what, frame, message) * count as f64) as usize).min(count.saturating_sub(1))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014), one step on.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_come_out(seed: u64, share in 0.0f64..=1.0) {
            let dice = Dice { seed };
            let struck = (0..4000).filter(|&frame| dice.strikes(share, Roll::Drop, frame, 0)).count();
            // Six standard deviations.
            let room = 6.0 * (4000.0 * share * (1.0 - share)).sqrt() + 1.0;
            prop_assert!((struck as f64 - 4000.0 * share).abs() <= room, "{struck} of 4000 at {share}");
        }

        #[test]
        fn picks_are_within(seed: u64, count in 1usize..1000, frame: u64) {
            let dice = Dice { seed };
            prop_assert!(dice.pick(count, Roll::HalfPlace, frame, 3) < count);
        }
    }

    #[test]
    fn rolls_are_independent() {
        let dice = Dice { seed: 7 };
        let both = (0..4000)
            .filter(|&n| dice.strikes(0.5, Roll::Drop, n, 0) && dice.strikes(0.5, Roll::BadCrc, n, 0))
            .count();
        assert!((850..1150).contains(&both), "{both} of 4000 where 1000 are expected");
    }
}
