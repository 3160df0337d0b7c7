//! Peers that mean no good, in a process of their own, which can be given a core of its own.
//!
//! The process is this test program once more, with [`TARGETS`] in its environment. All its connections come from one
//! address that is not the honest ones', where the system has a second one on this machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use ultramotion_igtlink::{Client, ClientConfig, Content, Image, Message, Timestamp, Transform};

/// Addresses of the results, of the page, and of a gateway that waits for its scanner, with commas between.
const TARGETS: &str = "ULTRAMOTION_SOAK_TARGETS";
/// Pause between two attacks of a kind, in milliseconds.
const PAUSE_MS: &str = "ULTRAMOTION_SOAK_PAUSE_MS";
/// Cores for the attackers and what they may wear out, as `taskset` takes them.
const CPUS: &str = "ULTRAMOTION_SOAK_ATTACKER_CPUS";

/// Attacks so far, by kind.
#[derive(Default)]
struct Counts {
    idle: AtomicU64,
    storm: AtomicU64,
    flood: AtomicU64,
    drip: AtomicU64,
    large: AtomicU64,
    page: AtomicU64,
    names_and_sizes: AtomicU64,
}

/// Puts a process on the attackers' cores, if they have some.
pub fn pin(process: &Child) {
    if let Ok(cpus) = std::env::var(CPUS) {
        let mut taskset = Command::new("taskset");
        taskset.args(["-acp", &cpus, &process.id().to_string()]).stdout(Stdio::null());
        assert!(taskset.status().expect("taskset").success(), "{CPUS} = {cpus}");
    }
}

/// Starts the attackers.
pub fn start(results: SocketAddr, page: SocketAddr, source: SocketAddr, pause_ms: u64) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "attacks::attackers", "--nocapture"])
        .env(TARGETS, format!("{results},{page},{source}"))
        .env(PAUSE_MS, pause_ms.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    pin(&child);
    child
}

/// Ends them, and says what they did.
pub fn end(mut attackers: Child) -> Value {
    let _ = attackers.kill();
    let output = attackers.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    told.unwrap_or_else(|| panic!("the attackers said nothing: {text}"))
}

/// Not a test but the attackers' process, which goes on until it is killed.
#[test]
fn attackers() {
    let Ok(targets) = std::env::var(TARGETS) else { return };
    let targets: Vec<SocketAddr> = targets.split(',').map(|target| target.parse().unwrap()).collect();
    let &[results, page, source] = &targets[..] else { panic!("three targets") };
    let pause = Duration::from_millis(std::env::var(PAUSE_MS).unwrap().parse().unwrap());
    let counts = Counts::default();
    std::thread::scope(|scope| {
        let repeat = |count: &'static str, mut attack: Box<dyn FnMut() -> bool + Send>| {
            let counter = counts.of(count);
            scope.spawn(move || {
                loop {
                    counter.fetch_add(u64::from(attack()), Relaxed);
                    std::thread::sleep(pause);
                }
            });
        };
        let mut idle = Held::new(results);
        repeat("idle", Box::new(move || idle.fill(32)));
        repeat("storm", Box::new(move || connect(results).is_some()));
        repeat("flood", Box::new(move || flood(results)));
        let (mut drips, mut source_drips) = (Held::new(results), Held::new(source));
        repeat("drip", Box::new(move || drips.drip(4) | source_drips.drip(8)));
        repeat("large", Box::new(move || large(results)));
        let mut slow = Held::new(page);
        repeat("page", Box::new(move || slow.drip(32)));
        let scanner = Client::start(ClientConfig::new(source.to_string())).unwrap();
        let mut number = 0;
        repeat(
            "names_and_sizes",
            Box::new(move || {
                std::thread::sleep(Duration::from_millis(100));
                number += 1;
                names_and_sizes(&scanner, number)
            }),
        );
        loop {
            std::thread::sleep(Duration::from_millis(500));
            println!("{}", counts.json());
        }
    });
}

impl Counts {
    fn of(&self, kind: &str) -> &AtomicU64 {
        self.all().into_iter().find(|(name, _)| *name == kind).unwrap().1
    }

    fn all(&self) -> [(&'static str, &AtomicU64); 7] {
        [
            ("idle", &self.idle),
            ("storm", &self.storm),
            ("flood", &self.flood),
            ("drip", &self.drip),
            ("large", &self.large),
            ("page", &self.page),
            ("names_and_sizes", &self.names_and_sizes),
        ]
    }

    fn json(&self) -> Value {
        self.all()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count.load(Relaxed).into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// A connection from the attackers' address.
fn connect(target: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).ok()?;
    if cfg!(target_os = "linux") {
        socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0).into()).ok()?;
    }
    socket.connect_timeout(&target.into(), Duration::from_secs(1)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    Some(stream)
}

/// Connections that are held for as long as the other side lets them be.
struct Held {
    target: SocketAddr,
    streams: Vec<TcpStream>,
}

impl Held {
    fn new(target: SocketAddr) -> Self {
        Held { target, streams: Vec::new() }
    }

    /// Makes one more if there are fewer than so many.
    fn fill(&mut self, count: usize) -> bool {
        self.streams.retain_mut(|stream| {
            let _ = stream.set_nonblocking(true);
            match stream.read(&mut [0; 4096]) {
                Ok(len) => len > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        let more = if self.streams.len() < count { connect(self.target) } else { None };
        self.streams.extend(more);
        !self.streams.is_empty()
    }

    /// The same, and sends a byte on each now and then.
    fn drip(&mut self, count: usize) -> bool {
        std::thread::sleep(Duration::from_millis(50));
        let any = self.fill(count);
        // Zeros: the beginning of a message, or of a request, that never ends well.
        self.streams.retain_mut(|stream| stream.write_all(&[0]).is_ok());
        any
    }
}

/// Sends questions as fast as they are taken, for a second at most.
fn flood(target: SocketAddr) -> bool {
    let Some(mut stream) = connect(target) else { return false };
    let message = Message::new("Flood".parse().unwrap(), Content::string("?")).to_bytes().unwrap();
    let many = message.repeat(1000);
    (0..100).take_while(|_| stream.write_all(&many).is_ok()).count() > 0
}

/// Announces a message of 60 MiB, and sends what is taken of it.
fn large(target: SocketAddr) -> bool {
    let Some(mut stream) = connect(target) else { return false };
    let mut header = Message::new("Large".parse().unwrap(), Content::string("x")).to_bytes().unwrap();
    header.truncate(58);
    header[42..50].copy_from_slice(&(60u64 << 20).to_be_bytes());
    let _ = stream.write_all(&header);
    let megabyte = vec![0; 1 << 20];
    let _ = (0..60).take_while(|_| stream.write_all(&megabyte).is_ok()).count();
    true
}

/// An image of another size than the one before, and poses with names that were never heard.
fn names_and_sizes(scanner: &Client, number: u64) -> bool {
    let now = Timestamp::now();
    let pose = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
    for part in 0..8 {
        let name = format!("T{}", 8 * number + part).parse().unwrap();
        let _ = scanner.send(&Message::new(name, Content::Transform(pose)).at(now));
    }
    let side = 64 + 16 * (number % 12) as u16;
    let image = Image::grey8(side, side, vec![number as u8; usize::from(side).pow(2)]);
    scanner.send(&Message::new("Image_Probe".parse().unwrap(), Content::Image(image)).at(now)).is_ok()
}
