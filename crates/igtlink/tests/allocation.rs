//! A stream of images allocates nothing once it runs: not to encode, not to cut, not to decode.

#[path = "support/counting_alloc.rs"]
mod counting_alloc;

use ultramotion_igtlink::*;

#[global_allocator]
static ALLOCATOR: counting_alloc::CountingAlloc = counting_alloc::CountingAlloc;

#[test]
fn a_running_stream_allocates_nothing() {
    let pixels = vec![7; 640 * 480];
    let mut decoder = StreamDecoder::new(DecoderConfig::default());
    let mut bytes = Vec::new();
    let mut images = 0;
    for round in 0..20 {
        if round == 3 {
            counting_alloc::start();
        }
        let image = Image::grey8(640, 480, &pixels[..]);
        let message = Message::new(DeviceName::truncated("Image"), Content::Image(image));
        message.encode_into(&mut bytes).expect("a message");
        for piece in bytes.chunks(65536) {
            let mut rest = piece;
            while let Some(raw) = decoder.feed(&mut rest) {
                let raw = raw.expect("a message");
                let Content::Image(image) = raw.decode().expect("a message").content else {
                    panic!("no image")
                };
                assert_eq!(image.pixels.len(), pixels.len());
                images += 1;
            }
        }
    }
    assert_eq!((images, counting_alloc::allocations()), (20, 0));
}

#[test]
fn a_claim_alone_takes_no_memory() {
    let mut decoder =
        StreamDecoder::new(DecoderConfig { max_body_bytes: 1 << 40, ..DecoderConfig::default() });
    let mut header = Message::new(DeviceName::EMPTY, Content::string("x")).to_bytes().expect("a message");
    header[42..50].copy_from_slice(&(1u64 << 39).to_be_bytes());
    header.truncate(HEADER_SIZE);
    counting_alloc::start();
    assert!(decoder.feed(&mut &header[..]).is_none());
    assert!(decoder.feed(&mut &[0; 1000][..]).is_none());
    assert!(counting_alloc::peak_bytes() <= 64 << 10, "{} bytes", counting_alloc::peak_bytes());
}
