//! Client and server over real sockets: reconnection, slow and hostile peers, orderly ends.
//!
//! Time-outs of the tests themselves are watchdogs against hanging, not expectations.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use ultramotion_igtlink::*;

const WATCHDOG: Duration = Duration::from_secs(30);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn serve(change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = ServerConfig::listening_on(loopback());
    change(&mut config);
    Server::start(config).expect("a free port")
}

fn connect(server: &Server, change: impl FnOnce(&mut ClientConfig)) -> Client {
    let mut config = ClientConfig::new(server.local_addrs()[0].to_string());
    change(&mut config);
    let client = Client::start(config).expect("a thread");
    assert!(client.wait_connected(WATCHDOG));
    client
}

fn note(text: &str) -> Message<'_> {
    Message::new("Note".parse().expect("a name"), Content::string(text))
}

fn words(raw: &RawMessage) -> String {
    match raw.decode().expect("a message").content {
        Content::String(text) => text.to_str().expect("a text").into_owned(),
        other => panic!("{} instead of a text", other.type_name()),
    }
}

fn next_raw(client: &Client) -> RawMessage {
    loop {
        match client.recv_timeout(WATCHDOG).expect("an event") {
            ClientEvent::Message(raw) => return raw,
            ClientEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The first event of the server that `pick` takes.
fn await_event<T>(server: &Server, mut pick: impl FnMut(ServerEvent) -> Option<T>) -> T {
    loop {
        if let Some(picked) = pick(server.recv_timeout(WATCHDOG).expect("an event")) {
            return picked;
        }
    }
}

fn await_disconnect(server: &Server) -> Disconnect {
    await_event(server, |event| match event {
        ServerEvent::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn everyone_hears_a_broadcast_and_one_an_answer() {
    let server = serve(|_| {});
    let clients = [connect(&server, |_| {}), connect(&server, |_| {}), connect(&server, |_| {})];
    assert!(server.wait_clients(3, WATCHDOG));
    assert_eq!(server.broadcast(&note("all")), Ok(3));
    for client in &clients {
        assert_eq!(words(&next_raw(client)), "all");
    }
    clients[1].send(&note("me?")).expect("connected");
    let (from, raw) = await_event(&server, |event| match event {
        ServerEvent::Message { client, raw } => Some((client, raw)),
        _ => None,
    });
    assert_eq!(words(&raw), "me?");
    server.send_to(from, &note("you")).expect("connected");
    assert_eq!(server.broadcast_raw(&raw), 3);
    assert_eq!(words(&next_raw(&clients[0])), "me?");
    assert_eq!(words(&next_raw(&clients[1])), "you");
    assert_eq!(words(&next_raw(&clients[1])), "me?");
    assert_eq!(server.stats().accepted, 3);
    assert_eq!(clients[1].stats().traffic.messages_in, 3);
}

#[test]
fn a_peer_that_never_reads_stalls_nobody() {
    let server = serve(|config| {
        config.send_queue = 2;
        config.stall_timeout = None;
    });
    let stalled = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
    let fast = connect(&server, |_| {});
    assert!(server.wait_clients(2, WATCHDOG));
    let pixels = vec![1; 1024 * 1024];
    let image =
        Message::new("Image".parse().expect("a name"), Content::Image(Image::grey8(1024, 1024, &pixels)));
    let dropped = || server.clients().iter().map(|client| client.dropped).max();
    let mut sent = 0;
    while dropped() == Some(0) {
        assert_eq!(server.broadcast(&image), Ok(2));
        sent += 1;
        // The fast one gets every single image.
        assert_eq!(next_raw(&fast).body().len(), 12 + 72 + pixels.len() + 2);
        assert!(sent < 10_000, "a peer that never reads took everything");
    }
    drop(stalled);
    assert!(matches!(await_disconnect(&server), Disconnect::PeerClosed | Disconnect::Io(_)));
    let traffic = server.stats().traffic;
    assert_eq!(traffic.queued_out, 2 * sent);
    // Of the fast one's, the last may be counted a moment after it was received.
    fast.shutdown();
    await_disconnect(&server);
    let traffic_end = server.stats().traffic;
    assert_eq!(traffic_end.queued_out, traffic_end.messages_out + traffic_end.dropped_out);
    assert!(traffic_end.dropped_out > 0);
}

#[test]
fn a_peer_that_never_reads_is_let_go() {
    let server = serve(|config| config.stall_timeout = Some(Duration::from_millis(50)));
    let _stalled = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
    assert!(server.wait_clients(1, WATCHDOG));
    let pixels = vec![1; 1024 * 1024];
    let image =
        Message::new("Image".parse().expect("a name"), Content::Image(Image::grey8(1024, 1024, &pixels)));
    let reason = loop {
        server.broadcast(&image).expect("a message");
        match server.recv_timeout(Duration::from_millis(1)) {
            Ok(ServerEvent::Disconnected { reason, .. }) => break reason,
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(reason, Disconnect::Stalled);
}

#[test]
fn a_lost_server_is_found_again() {
    let first = serve(|_| {});
    let address = first.local_addrs()[0];
    let client = connect(&first, |config| config.first_retry = Duration::from_millis(1));
    assert!(first.wait_clients(1, WATCHDOG));
    first.shutdown();
    loop {
        match client.recv_timeout(WATCHDOG).expect("an event") {
            ClientEvent::Disconnected { .. } => break,
            ClientEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // Nothing waits for a connection that may come.
    while client.send(&note("lost")).is_ok() {}
    // The client may be in the middle of an attempt at the old port.
    let second = loop {
        match Server::start(ServerConfig::listening_on(address)) {
            Ok(server) => break server,
            Err(ServerError::Listen { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!(client.wait_connected(WATCHDOG));
    assert!(second.wait_clients(1, WATCHDOG));
    assert_eq!(second.broadcast(&note("back")), Ok(1));
    let back = loop {
        match client.recv_timeout(WATCHDOG).expect("an event") {
            ClientEvent::Message(raw) => break raw,
            ClientEvent::Connected { .. }
            | ClientEvent::ConnectFailed { .. }
            | ClientEvent::Disconnected { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(words(&back), "back");
    assert!(client.stats().connects >= 2);
}

#[test]
fn hostile_bytes_end_their_own_connection_only() {
    let server = serve(|config| config.decoder.max_body_bytes = 1000);
    let good = connect(&server, |_| {});
    assert!(server.wait_clients(1, WATCHDOG));
    let mut huge = note("x").to_bytes().expect("a message");
    huge[42..50].copy_from_slice(&(1u64 << 40).to_be_bytes());
    for (bytes, reason) in [(vec![0xff; 100], RejectReason::Version), (huge, RejectReason::TooLarge)] {
        let mut peer = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
        peer.write_all(&bytes).expect("a taker");
        let error = await_event(&server, |event| match event {
            ServerEvent::Rejected { error, .. } => Some(error),
            _ => None,
        });
        assert_eq!(error.reason(), Some(reason));
        assert_eq!(await_disconnect(&server), Disconnect::BadHeader(error));
        assert_eq!(server.stats().traffic.rejects.get(reason), 1);
    }
    // One wrong checksum is no reason to hang up.
    let mut damaged = note("x").to_bytes().expect("a message");
    *damaged.last_mut().expect("a body") ^= 1;
    let mut peer = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
    peer.write_all(&[damaged, note("y").to_bytes().expect("a message")].concat()).expect("a taker");
    let mut rejected = false;
    let raw = await_event(&server, |event| match event {
        ServerEvent::Rejected { error: StreamError::Crc { .. }, .. } => {
            rejected = true;
            None
        }
        ServerEvent::Message { raw, .. } => Some(raw),
        ServerEvent::Connected { .. } => None,
        other => panic!("{other:?}"),
    });
    assert!(rejected);
    assert_eq!(words(&raw), "y");
    good.send(&note("still here")).expect("connected");
    let raw = await_event(&server, |event| match event {
        ServerEvent::Message { raw, .. } => Some(raw),
        _ => None,
    });
    assert_eq!(words(&raw), "still here");
}

#[test]
fn half_a_message_is_counted() {
    let server = serve(|_| {});
    let mut peer = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
    let bytes = note("a message that ends too soon").to_bytes().expect("a message");
    peer.write_all(&bytes[..bytes.len() - 5]).expect("a taker");
    drop(peer);
    assert_eq!(await_disconnect(&server), Disconnect::MidMessage);
    assert_eq!(server.stats().traffic.rejects.get(RejectReason::Truncated), 1);
}

fn await_refusal(server: &Server) -> Refusal {
    await_event(server, |event| match event {
        ServerEvent::Refused { why, .. } => Some(why),
        _ => None,
    })
}

/// A connection of bytes.
fn raw_peer(server: &Server) -> TcpStream {
    let peer = TcpStream::connect(server.local_addrs()[0]).expect("a connection");
    peer.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
    peer
}

#[test]
fn strangers_and_crowds_are_turned_away() {
    let server = serve(|config| config.allow = "10.0.0.0/8".parse().expect("a list"));
    let mut peer = raw_peer(&server);
    assert_eq!(await_refusal(&server), Refusal::NotAllowed);
    assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
    assert_eq!((server.stats().refused, server.stats().accepted), (1, 0));

    let server = serve(|config| config.max_clients = 1);
    let _first = connect(&server, |_| {});
    assert!(server.wait_clients(1, WATCHDOG));
    let _second = raw_peer(&server);
    assert_eq!(await_refusal(&server), Refusal::Full);
}

#[test]
fn one_address_cannot_take_all_places() {
    let server = serve(|config| config.max_clients_per_address = 2);
    let _clients = [raw_peer(&server), raw_peer(&server)];
    assert!(server.wait_clients(2, WATCHDOG));
    let _third = raw_peer(&server);
    assert_eq!(await_refusal(&server), Refusal::AddressFull);
    // Other systems have one loopback address alone.
    if cfg!(target_os = "linux") {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        other.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("an address");
        other.connect(&server.local_addrs()[0].into()).expect("a connection");
        assert!(server.wait_clients(3, WATCHDOG), "there is room for others");
    }
}

#[test]
fn who_has_said_nothing_makes_room() {
    let server = serve(|config| (config.max_clients, config.displace_silent) = (2, true));
    let speaks = raw_peer(&server);
    (&speaks).write_all(&note("here").to_bytes().expect("a message")).expect("room in the socket");
    await_event(&server, |event| matches!(event, ServerEvent::Message { .. }).then_some(()));
    let mut silent = raw_peer(&server);
    assert!(server.wait_clients(2, WATCHDOG));
    let also_speaks = raw_peer(&server);
    assert_eq!(await_disconnect(&server), Disconnect::Displaced);
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    (&also_speaks).write_all(&note("too").to_bytes().expect("a message")).expect("room in the socket");
    await_event(&server, |event| matches!(event, ServerEvent::Message { .. }).then_some(()));
    let _late = raw_peer(&server);
    assert_eq!(await_refusal(&server), Refusal::Full, "both have something to say");
}

#[test]
fn a_flood_waits_at_its_own_end() {
    const FLOOD: usize = 300;
    let server = serve(|config| (config.max_messages_per_s, config.receive_queue) = (Some(1), 2 * FLOOD));
    let mut flooder = raw_peer(&server);
    assert!(server.wait_clients(1, WATCHDOG));
    flooder
        .write_all(&note("flood").to_bytes().expect("a message").repeat(FLOOD))
        .expect("room in the socket");
    let other = connect(&server, |_| {});
    other.send(&note("me too")).expect("connected");
    let mut before = 0;
    await_event(&server, |event| match event {
        ServerEvent::Message { raw, .. } if words(&raw) == "me too" => Some(()),
        ServerEvent::Message { .. } => {
            before += 1;
            None
        }
        _ => None,
    });
    assert!(before < FLOOD, "{before} of the flood came first");
}

#[test]
fn bytes_that_make_no_message_do_not_keep_a_connection() {
    let server = serve(|config| config.idle_timeout = Some(Duration::from_millis(200)));
    let mut peer = raw_peer(&server);
    let bytes = note(&"long".repeat(1000)).to_bytes().expect("a message");
    // A byte now and then, until the server has had enough of it.
    peer.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
    let is_waiting = |result: std::io::Result<usize>| {
        result.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    };
    let dripped = bytes.iter().take_while(|&&byte| {
        let _ = peer.write_all(&[byte]);
        is_waiting(peer.read(&mut [0]))
    });
    assert!(dripped.count() < 1000, "dripped on for 20 s");
    assert_eq!(await_disconnect(&server), Disconnect::Idle);
}

#[test]
fn a_port_in_use_is_named() {
    let server = serve(|_| {});
    let address = server.local_addrs()[0];
    let error = Server::start(ServerConfig::listening_on(address)).expect_err("a taken port");
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    let none = ServerConfig { listen: Vec::new(), ..ServerConfig::default() };
    assert!(matches!(Server::start(none), Err(ServerError::NoAddress)));
}

#[test]
fn an_address_that_is_none_is_named() {
    let client = Client::start(ClientConfig::new("localhost")).expect("a thread");
    match client.recv_timeout(WATCHDOG).expect("an event") {
        ClientEvent::ConnectFailed { error, .. } => {
            assert!(error.to_string().starts_with("cannot resolve `localhost`: "), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.send(&note("x")), Err(SendError::NotConnected));
    // A port where nobody listens: it was free a moment ago.
    let free = TcpListener::bind(loopback()).and_then(|socket| socket.local_addr()).expect("a free port");
    let client = Client::start(ClientConfig::new(free.to_string())).expect("a thread");
    match client.recv_timeout(WATCHDOG).expect("an event") {
        ClientEvent::ConnectFailed { error: ConnectError::Connect { address, .. }, retry_in } => {
            assert_eq!((address, retry_in), (free, Duration::from_millis(50)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn keep_alives_come_when_nothing_else_does() {
    let server = serve(|config| config.keep_alive = Some(Duration::from_millis(5)));
    let client = connect(&server, |config| config.keep_alive = Some(Duration::from_millis(5)));
    for _ in 0..3 {
        let raw = next_raw(&client);
        let Content::Status(status) = raw.decode().expect("a message").content else { panic!("no status") };
        assert_eq!(status.code, StatusCode::Ok);
    }
    let raw = await_event(&server, |event| match event {
        ServerEvent::Message { raw, .. } => Some(raw),
        _ => None,
    });
    assert_eq!(raw.header().type_name, "STATUS");
    assert_eq!(server.stats().traffic.messages_out, 0);
}

#[test]
fn a_silent_server_is_left() {
    let silent = TcpListener::bind(loopback()).expect("a free port");
    let mut config = ClientConfig::new(silent.local_addr().expect("an address").to_string());
    config.idle_timeout = Some(Duration::from_millis(20));
    let client = Client::start(config).expect("a thread");
    let reason = loop {
        match client.recv_timeout(WATCHDOG).expect("an event") {
            ClientEvent::Disconnected { reason } => break reason,
            ClientEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, Disconnect::Idle);
}

#[test]
fn an_orderly_end_sends_what_waits() {
    let server = serve(|config| config.send_queue = 50);
    let client = connect(&server, |config| config.receive_queue = 100);
    assert!(server.wait_clients(1, WATCHDOG));
    for n in 0..50 {
        assert_eq!(server.broadcast(&note(&n.to_string())), Ok(1));
    }
    server.shutdown();
    for n in 0..50 {
        assert_eq!(words(&next_raw(&client)), n.to_string());
    }
    match client.recv_timeout(WATCHDOG).expect("an event") {
        ClientEvent::Disconnected { reason } => assert_eq!(reason, Disconnect::PeerClosed),
        other => panic!("{other:?}"),
    }
    client.shutdown();
}

#[test]
fn a_slow_owner_loses_the_oldest_messages() {
    let server = serve(|config| config.receive_queue = 3);
    let client = connect(&server, |config| config.send_queue = 10);
    for n in 0..10 {
        client.send(&note(&n.to_string())).expect("connected");
    }
    while server.stats().traffic.messages_in < 10 {
        std::thread::yield_now();
    }
    client.shutdown();
    // The end of the connection takes a place as well.
    while server.stats().clients > 0 {
        std::thread::yield_now();
    }
    let last = loop {
        let mut last = None;
        while let Ok(event) = server.recv_timeout(Duration::ZERO) {
            if let ServerEvent::Message { raw, .. } = event {
                last = Some(words(&raw));
            }
        }
        if last.is_some() {
            break last;
        }
    };
    assert_eq!(last.as_deref(), Some("9"));
    assert!(server.stats().traffic.dropped_in >= 7);
}

#[test]
fn ipv6_is_spoken_beside_ipv4() {
    let config = ServerConfig {
        listen: vec![loopback(), "[::1]:0".parse().expect("an address")],
        ..ServerConfig::default()
    };
    let server = match Server::start(config) {
        Ok(server) => server,
        Err(error) => return eprintln!("SKIPPED: no IPv6 on this machine ({error})"),
    };
    for address in server.local_addrs() {
        let client = Client::start(ClientConfig::new(address.to_string())).expect("a thread");
        assert!(client.wait_connected(WATCHDOG));
        client.send(&note(&address.to_string())).expect("connected");
        let raw = await_event(&server, |event| match event {
            ServerEvent::Message { raw, .. } => Some(raw),
            _ => None,
        });
        assert_eq!(words(&raw), address.to_string());
    }
}
