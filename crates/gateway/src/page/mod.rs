//! The live page: HTTP and WebSocket, at the network's edge.
//!
//! | path | gives |
//! |---|---|
//! | `/` | the page, whose files are part of the program |
//! | `/metrics` | figures for Prometheus |
//! | `/healthz` | 200 as long as the program runs |
//! | `/readyz` | 200 while the scanner is connected and frames are answered, else 503 and why |
//! | `/api/state` | everything that is known, as JSON |
//! | `/api/history?seconds=600` | a row for each second |
//! | `/api/stream` | a WebSocket: frames with their packets, states, and what a viewer asks for |
//!
//! It has a thread and a runtime of its own; nothing of it is in the stream. A frame is handed over as a shared pointer,
//! and only while somebody looks; it is encoded once for all viewers, on another thread; a viewer gets a frame when it has
//! drawn the one before. So a slow viewer sees fewer frames, and nobody waits for it.
//!
//! A browser is a way in for every page that is open in it. Requests must name a host that is this one, and come from a page
//! of this origin; beyond loopback they must bring a token.

mod guard;
mod routes;
mod state;
mod tap;
mod viewer;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use ultramotion_types::PromptCommand;

use crate::config::PageConfig;
use crate::prompts::Reply;
pub(crate) use state::{
    Age, Client, DeviceState, Frames, PerFrame, PromptState, Rates, RecordingState, SourceView, State,
};
pub(crate) use tap::Tap;

/// What the page shows, and whom it asks.
pub(crate) trait Subject: Send + Sync + 'static {
    /// Everything, as it stands.
    fn state(&self) -> State;
    /// Called once a second: notes a row of the history.
    fn tick(&self);
    /// The last seconds of the history, as JSON.
    fn history(&self, seconds: usize) -> String;
    /// Figures for Prometheus.
    fn metrics(&self) -> String;
    /// Whether frames are answered, or why not.
    fn readiness(&self) -> Result<(), &'static str>;
    /// Passes on what somebody points at.
    fn ask(&self, command: PromptCommand, reply: Reply);
    /// Keeps a frame that is shown, with its results. Returns where; it may take as long as the disk does.
    fn save(&self, frame_id: u64) -> Result<String, String>;
}

/// Why there is no page.
#[derive(Debug, Error)]
pub enum PageError {
    /// The address is not to be had.
    #[error("page.listen: cannot listen on {address}: {error}; choose another address, or --page off")]
    Listen {
        /// It.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// No thread.
    #[error("cannot start a thread for the page: {0}")]
    Thread(io::Error),
}

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// A request's head must be here after so long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes: the least that hyper takes.
const MAX_HEAD: usize = 8192;
/// After an accept that failed, as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The page, while it is served.
#[derive(Debug)]
pub(crate) struct Page {
    addresses: Vec<SocketAddr>,
    tap: Arc<Tap>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// What all connections share.
pub(crate) struct House {
    subject: Arc<dyn Subject>,
    tap: Arc<Tap>,
    /// The latest state as a message of the stream.
    states: watch::Receiver<Arc<str>>,
    guard: guard::Guard,
}

impl Page {
    /// Serves the page at the configured address, and `also` at another.
    pub(crate) fn start(
        config: &PageConfig,
        also: Option<SocketAddr>,
        subject: Arc<dyn Subject>,
        tap: Arc<Tap>,
    ) -> Result<Option<Self>, PageError> {
        let wanted: Vec<SocketAddr> = config.address().into_iter().chain(also).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let listeners = wanted.into_iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let (stop, stopped) = oneshot::channel();
        let (says, states) = watch::channel(Arc::from(""));
        let guard = guard::Guard::new(config);
        let house = Arc::new(House { subject, tap: Arc::clone(&tap), states, guard });
        let encoder = Arc::clone(&tap);
        let encode = std::thread::Builder::new().name("page-encode".into()).spawn(move || encoder.encode());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(PageError::Thread)?;
        let serve = std::thread::Builder::new().name("page".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listeners, house, says) => {}
                    _ = stopped => {}
                }
            });
            // Whoever is in the middle of writing to a disk is not waited for.
            runtime.shutdown_background();
        });
        let threads =
            [encode, serve].into_iter().collect::<io::Result<Vec<_>>>().map_err(PageError::Thread)?;
        Ok(Some(Page { addresses, tap, stop: Some(stop), threads }))
    }

    /// Where it is, with real ports.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.tap.close();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> Result<StdListener, PageError> {
    let listener = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| PageError::Listen { address, error })
}

/// Takes connections until it is dropped.
async fn serve(listeners: Vec<StdListener>, house: Arc<House>, says: watch::Sender<Arc<str>>) {
    let routes = routes::routes(Arc::clone(&house));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for listener in listeners {
        let Ok(listener) = TcpListener::from_std(listener) else { continue };
        tokio::spawn(accept(listener, routes.clone(), Arc::clone(&room)));
    }
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        house.subject.tick();
        if says.receiver_count() > 1 {
            let state = house.subject.state();
            says.send_replace(viewer::state_message(&state).into());
        }
    }
}

async fn accept(listener: TcpListener, routes: axum::Router, room: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let routes = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), routes)
                .with_upgrades();
            // A peer that breaks off or speaks no HTTP is no matter of ours.
            let _ = connection.await;
            drop(place);
        });
    }
}
