//! How fast: checksum, codec, loopback throughput, and latency at 60 Hz, beside pyigtl.
//!
//! ```text
//! cargo bench -p ultramotion-igtlink --bench igtl [-- checksum codec throughput latency pyigtl]
//! ```
//!
//! Takes about half a minute. pyigtl is measured in the same run where `python3`, or the Python that
//! `ULTRAMOTION_PYTHON` names, has it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ultramotion_igtlink::*;

const WIDTH: u16 = 640;
const HEIGHT: u16 = 480;
const THROUGHPUT_FRAMES: u32 = 10_000;
const LATENCY_FRAMES: u32 = 300;
const RATE_HZ: f64 = 60.0;
const WATCHDOG: Duration = Duration::from_secs(30);

fn main() {
    // `cargo test --benches` passes `--test`: nothing is tested here.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    println!("ultramotion-igtlink, {WIDTH}x{HEIGHT} 8-bit IMAGE, {threads} hardware threads, loopback TCP");
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] = [
        ("checksum", checksum),
        ("codec", codec),
        ("throughput", throughput),
        ("latency", latency),
        ("pyigtl", pyigtl),
    ];
    for (name, run) in parts {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            run();
        }
    }
}

/// Calls a second over about half a second.
fn rate(mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed() < Duration::from_millis(500) {
        call();
        calls += 1;
    }
    f64::from(calls) / start.elapsed().as_secs_f64()
}

fn checksum() {
    for len in [106, 4096, usize::from(WIDTH) * usize::from(HEIGHT)] {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
        let rate = rate(|| {
            black_box(crc64(black_box(&bytes)));
        });
        println!("crc64, {len} bytes: {:.2} GB/s", rate * len as f64 / 1e9);
    }
}

fn image(pixels: &[u8]) -> Message<'_> {
    Message::new(DeviceName::truncated("Image"), Content::Image(Image::grey8(WIDTH, HEIGHT, pixels)))
}

fn pixels() -> Vec<u8> {
    (0..usize::from(WIDTH) * usize::from(HEIGHT)).map(|n| ((n * 31) >> 3) as u8).collect()
}

fn codec() {
    let pixels = pixels();
    let message = image(&pixels);
    let mut bytes = Vec::new();
    let encode = rate(|| message.encode_into(black_box(&mut bytes)).unwrap());
    let decode = rate(|| drop(black_box(Message::decode(black_box(&bytes)).unwrap())));
    println!("encode with checksum: {encode:.0} frames/s; decode with checksum: {decode:.0} frames/s");
}

fn connected(send_queue: usize) -> (Server, Client) {
    let config = ServerConfig { send_queue, ..ServerConfig::listening_on("127.0.0.1:0".parse().unwrap()) };
    let server = Server::start(config).unwrap();
    let client = Client::start(ClientConfig::new(server.local_addrs()[0].to_string())).unwrap();
    assert!(client.wait_connected(WATCHDOG) && server.wait_clients(1, WATCHDOG));
    (server, client)
}

/// Calls `take` for each of `count` messages.
fn receive(client: &Client, count: u32, mut take: impl FnMut(Message<'_>)) {
    let mut received = 0;
    while received < count {
        match client.recv_timeout(WATCHDOG).unwrap() {
            ClientEvent::Message(raw) => {
                take(raw.decode().unwrap());
                received += 1;
            }
            ClientEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn throughput() {
    let (server, client) = connected(8);
    let pixels = pixels();
    let received = AtomicU32::new(0);
    let (start, cpu_start) = (Instant::now(), cpu_seconds());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sent in 0..THROUGHPUT_FRAMES {
                // Full queues would let frames go, on a busy machine: here all of them count.
                while sent - received.load(Ordering::Relaxed) >= 6 {
                    std::thread::sleep(Duration::from_micros(20));
                }
                server.broadcast(&image(&pixels)).unwrap();
            }
        });
        receive(&client, THROUGHPUT_FRAMES, |message| {
            drop(black_box(message));
            received.fetch_add(1, Ordering::Relaxed);
        });
    });
    let seconds = start.elapsed().as_secs_f64();
    let (server, client) = (server.stats().traffic, client.stats().traffic);
    assert_eq!((server.dropped_out, client.dropped_in, client.rejects.total()), (0, 0, 0));
    let frames = f64::from(THROUGHPUT_FRAMES);
    let mb = frames * pixels.len() as f64 / 1e6;
    print!(
        "throughput, server to client, checksums made and checked: {:.0} frames/s, {:.0} MB/s",
        frames / seconds,
        mb / seconds
    );
    match cpu_start.zip(cpu_seconds()) {
        Some((start, end)) => {
            println!("; {:.0} frames per second of processor time, both ends", frames / (end - start))
        }
        None => println!(),
    }
}

/// Processor time of this process, where the operating system tells in Linux's way.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The fields after the name, which is in parentheses; user and system time are 14 and 15, in
    // ticks of 10 ms.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

fn latency() {
    let (server, client) = connected(4);
    let pixels = pixels();
    let begin = Instant::now();
    let due = |n: u32| begin + Duration::from_secs_f64(f64::from(n) / RATE_HZ);
    let mut latencies_ms = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..LATENCY_FRAMES {
                std::thread::sleep(due(n).saturating_duration_since(Instant::now()));
                // The time of sending travels as the timestamp: nanoseconds since the beginning.
                let message = image(&pixels).at(Timestamp::from_duration(begin.elapsed()));
                server.broadcast(&message).unwrap();
            }
        });
        receive(&client, LATENCY_FRAMES, |message| {
            let taken = begin.elapsed().saturating_sub(message.timestamp.as_duration());
            latencies_ms.push(taken.as_secs_f64() * 1e3);
        });
    });
    latencies_ms.sort_by(f64::total_cmp);
    let at = |part: f64| latencies_ms[((latencies_ms.len() - 1) as f64 * part).round() as usize];
    println!(
        "latency at {RATE_HZ} Hz, from before encoding to after decoding, {LATENCY_FRAMES} frames: \
         p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn pyigtl() {
    let python = std::env::var("ULTRAMOTION_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pyigtl_bench.py");
    match Command::new(&python).arg(script).status() {
        Ok(status) if status.success() => {}
        _ => println!("pyigtl: not measured: `{python}` is not there, or has no pyigtl"),
    }
}
