//! A page with the figures, for Prometheus.
//!
//! Just enough HTTP for one page: any request gets the last report, and the connection ends. Each has a thread of its own
//! and a time limit as a whole, so that a slow reader holds up nobody, and there are only so many: a new one takes the
//! place of the oldest. A request for a host of another name is none for this page but one that a browser was led into
//! making (DNS rebinding).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ultramotion_igtlink::Budget;

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another address or stop the process using it")]
pub struct MetricsError {
    address: SocketAddr,
    source: io::Error,
}

/// The page.
///
/// ```
/// use std::io::{Read, Write};
/// use ultramotion_gateway::metrics::MetricsPage;
///
/// let page = MetricsPage::start("127.0.0.1:0".parse()?, vec!["gateway.local".into()])?;
/// page.show("ultramotion_received 7\n".into());
/// let mut client = std::net::TcpStream::connect(page.local_addr())?;
/// client.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway.local:9464\r\n\r\n")?;
/// let mut text = String::new();
/// client.read_to_string(&mut text)?;
/// assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nultramotion_received 7\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MetricsPage {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    text: Mutex<String>,
    /// Names that the page may be asked for by, beside addresses and `localhost`.
    hosts: Vec<String>,
    /// Connections in work, with their numbers, the oldest first.
    open: Mutex<VecDeque<(u64, TcpStream)>>,
}

/// A request that takes longer, from the first byte to the last of its answer, gets none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests in work at a time.
const MAX_OPEN: usize = 16;
/// Requests in a second; more wait in the operating system.
const MAX_ARRIVALS_PER_S: u32 = 50;
/// Bytes of a request.
const MAX_REQUEST: usize = 8192;

impl MetricsPage {
    /// Serves an empty page from here on, until the program ends, to who asks for it by an address, as `localhost` or by
    /// one of these names.
    pub fn start(address: SocketAddr, hosts: Vec<String>) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared { text: Mutex::default(), hosts, open: Mutex::default() });
        let serving = Arc::clone(&shared);
        let serve = move || {
            let mut arrivals = Budget::per_second(MAX_ARRIVALS_PER_S);
            let mut number = 0;
            loop {
                serving.accept(&listener, number);
                number += 1;
                thread::sleep(arrivals.take(Instant::now()));
            }
        };
        thread::Builder::new().name("metrics".into()).spawn(serve).map_err(failed)?;
        Ok(MetricsPage { address: bound, shared })
    }

    /// What the page says now.
    pub fn show(&self, text: String) {
        *self.shared.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Its address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, VecDeque<(u64, TcpStream)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, number: u64) {
        let accepted = listener.accept().and_then(|(stream, _)| Ok((stream.try_clone()?, stream)));
        let Ok((kept, stream)) = accepted else {
            // The client is gone again, or this process has too many files open: without a pause that is a busy loop.
            return thread::sleep(Duration::from_millis(50));
        };
        let mut open = self.open();
        if open.len() == MAX_OPEN
            && let Some((_, oldest)) = open.pop_front()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        open.push_back((number, kept));
        drop(open);
        let serving = Arc::clone(self);
        let serve = move || {
            // A client that went away needs nothing.
            let _ = serving.answer(&mut Within { stream, deadline: Instant::now() + PATIENCE });
            serving.open().retain(|(open, _)| *open != number);
        };
        if thread::Builder::new().name("metrics-request".into()).spawn(serve).is_err() {
            self.open().retain(|(open, _)| *open != number);
        }
    }

    fn answer(&self, client: &mut Within) -> io::Result<()> {
        let (mut request, mut len) = ([0; MAX_REQUEST], 0);
        // The request's end must be read, or closing the connection would take the answer back.
        let (status, text) = loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut headers);
            match parsed.parse(&request[..len]) {
                Ok(httparse::Status::Complete(_)) if self.is_for_us(&parsed) => {
                    break ("200 OK", self.text.lock().unwrap_or_else(PoisonError::into_inner).clone());
                }
                Ok(httparse::Status::Complete(_)) => {
                    let advice = "This page is not that host's: ask for it by its address, or add the name to report.hosts.\n";
                    break ("421 Misdirected Request", advice.to_owned());
                }
                Ok(httparse::Status::Partial) if len < MAX_REQUEST => {}
                _ => break ("400 Bad Request", String::new()),
            }
            match client.read(&mut request[len..])? {
                0 => return Ok(()),
                more => len += more,
            }
        };
        let bytes = text.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n{text}"
        );
        client.write_all(answer.as_bytes())
    }

    /// Whether a request names a host that is this one: by an address, which nobody else can have a browser take for a
    /// name of their own, or by a name that it is known by.
    fn is_for_us(&self, request: &httparse::Request<'_, '_>) -> bool {
        let host = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
        let Some(host) = host.and_then(|header| std::str::from_utf8(header.value).ok()) else { return false };
        let is_address = |text: &str| text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        is_address(host)
            || is_address(host.trim_matches(['[', ']']))
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A connection that is over at a time, whatever its peer does.
struct Within {
    stream: TcpStream,
    deadline: Instant,
}

impl Within {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Within {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Within {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than an answer takes, unless there is a defect.
    const SOON: Duration = Duration::from_secs(20);

    fn page() -> MetricsPage {
        let page = MetricsPage::start("127.0.0.1:0".parse().unwrap(), vec!["known.example".into()]).unwrap();
        page.show("figures\n".into());
        page
    }

    fn connect(page: &MetricsPage) -> TcpStream {
        let client = TcpStream::connect(page.local_addr()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client
    }

    fn ask(page: &MetricsPage, host: &str) -> String {
        let mut client = connect(page);
        write!(client, "GET /metrics HTTP/1.1\r\n{host}\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn slow_readers_hold_up_nobody() {
        let page = page();
        let slow: Vec<TcpStream> = (0..3 * MAX_OPEN).map(|_| connect(&page)).collect();
        slow.iter().for_each(|mut client| drop(client.write_all(b"GET /")));
        assert!(ask(&page, "Host: localhost\r\n").starts_with("HTTP/1.1 200"));
        assert!(page.shared.open().len() <= MAX_OPEN);
    }

    #[test]
    fn a_request_in_drips_is_over_in_the_end() {
        let page = page();
        let mut client = connect(&page);
        client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let is_open = |read: io::Result<usize>| read.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        let drips =
            (0..2000).take_while(|_| client.write_all(b"x").is_ok() && is_open(client.read(&mut [0])));
        assert!(drips.count() < 2000, "dripped on for 20 s");
    }

    #[test]
    fn only_names_of_this_host_are_answered() {
        let page = page();
        for (host, status) in [
            ("Host: 127.0.0.1:9464\r\n", "200"),
            ("hOsT: [::1]:9464\r\n", "200"),
            ("Host: [::1]\r\n", "200"),
            ("Host: LocalHost:80\r\n", "200"),
            ("Accept: */*\r\nHost: known.example\r\n", "200"),
            ("Host: evil.example:9464\r\n", "421"),
            ("Host: 127.0.0.1.evil.example\r\n", "421"),
            ("", "421"),
            ("\0", "400"),
        ] {
            let answer = ask(&page, host);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
            assert_eq!(answer.ends_with("figures\n"), status == "200", "{host}: {answer}");
        }
    }
}
