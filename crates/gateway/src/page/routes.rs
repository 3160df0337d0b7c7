//! Paths, and what they give.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use super::House;
use super::guard::Verdict;
use super::tap::Picture;
use super::viewer;

/// Largest message of a viewer, bytes.
const MAX_SAID: usize = 16 << 10;
/// Rows of the history where nobody says how many.
const HISTORY_S: usize = 600;
/// The page's own files, and nothing else, from nowhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! file {
    ($path:literal, $kind:literal) => {
        File { path: concat!("/", $path), kind: $kind, content: include_str!(concat!("../../page/", $path)) }
    };
}

const FILES: [File; 11] = [
    file!("style.css", "text/css; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("stream.js", "text/javascript; charset=utf-8"),
    file!("mask.js", "text/javascript; charset=utf-8"),
    file!("view.js", "text/javascript; charset=utf-8"),
    file!("pointer.js", "text/javascript; charset=utf-8"),
    file!("panels.js", "text/javascript; charset=utf-8"),
    file!("charts.js", "text/javascript; charset=utf-8"),
    file!("tracks.js", "text/javascript; charset=utf-8"),
    file!("replay.js", "text/javascript; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
];
const INDEX: &str = include_str!("../../page/index.html");

/// Everything.
pub(super) fn routes(house: Arc<House>) -> Router {
    let mut router = Router::new()
        .route("/", get(|| async { ([(CONTENT_TYPE, "text/html; charset=utf-8")], INDEX) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(readiness))
        .route("/api/state", get(state))
        .route("/api/history", get(history))
        .route("/api/stream", get(stream));
    for File { path, kind, content } in FILES {
        router = router.route(path, get(move || async move { ([(CONTENT_TYPE, kind)], content) }));
    }
    router.layer(from_fn_with_state(Arc::clone(&house), guarded)).with_state(house)
}

/// Asks the guard first; nothing is kept by browsers, and nothing guessed.
async fn guarded(State(house): State<Arc<House>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let tells_nothing = path == "/healthz" || path == "/readyz";
    let mut response = match house.guard.judge(request.uri(), request.headers(), tells_nothing) {
        Verdict::Pass => next.run(request).await,
        Verdict::Keep(cookie) => {
            (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, path.to_owned())]).into_response()
        }
        Verdict::Refuse(status, words) => (status, words).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn metrics(State(house): State<Arc<House>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], house.subject.metrics())
}

async fn readiness(State(house): State<Arc<House>>) -> impl IntoResponse {
    match house.subject.readiness() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn state(State(house): State<Arc<House>>) -> impl IntoResponse {
    Json(house.subject.state())
}

#[derive(Debug, Deserialize)]
struct Span {
    seconds: Option<usize>,
}

async fn history(State(house): State<Arc<House>>, Query(span): Query<Span>) -> impl IntoResponse {
    let rows = house.subject.history(span.seconds.unwrap_or(HISTORY_S));
    ([(CONTENT_TYPE, "application/json")], rows)
}

#[derive(Debug, Deserialize)]
struct Wish {
    image: Option<String>,
}

async fn stream(
    State(house): State<Arc<House>>,
    Query(wish): Query<Wish>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let picture = match wish.image.as_deref() {
        None | Some("jpeg") => Picture::Jpeg,
        Some("png") => Picture::Png,
        Some(_) => return (StatusCode::BAD_REQUEST, "image is jpeg or png\n").into_response(),
    };
    upgrade
        .max_message_size(MAX_SAID)
        .max_frame_size(MAX_SAID)
        .on_upgrade(move |socket| viewer::view(socket, house, picture))
}
