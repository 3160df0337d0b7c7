//! A page with the figures, for Prometheus.
//!
//! Just enough HTTP for one page: any request gets the last report, and the connection ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

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
/// let page = MetricsPage::start("127.0.0.1:0".parse()?)?;
/// page.show("ultramotion_received 7\n".into());
/// let mut client = std::net::TcpStream::connect(page.local_addr())?;
/// client.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")?;
/// let mut text = String::new();
/// client.read_to_string(&mut text)?;
/// assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nultramotion_received 7\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MetricsPage {
    address: SocketAddr,
    text: Arc<Mutex<String>>,
}

/// A client that is slower than this does not get the page.
const PATIENCE: Duration = Duration::from_secs(1);

impl MetricsPage {
    /// Serves an empty page from here on, until the program ends.
    pub fn start(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let text = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&text);
        let serve = move || {
            for stream in listener.incoming().flatten() {
                let text = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A client that went away needs nothing.
                let _ = answer(stream, &text);
            }
        };
        thread::Builder::new().name("metrics".into()).spawn(serve).map_err(failed)?;
        Ok(MetricsPage { address: bound, text })
    }

    /// What the page says now.
    pub fn show(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Its address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

fn answer(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // The request's end must be read, or closing the connection would take the answer back.
    let (mut request, mut len) = ([0; 4096], 0);
    while !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut request[len..])? {
            0 => return Ok(()),
            more => len += more,
        }
    }
    let bytes = text.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n{text}"
    )
}
