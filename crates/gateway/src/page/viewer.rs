//! A viewer on its WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use ultramotion_types::PromptCommand;

use super::House;
use super::state::State;
use super::tap::Picture;

/// Frames under way to a viewer that has not said that it has drawn them.
const CREDIT: u32 = 2;
/// A viewer that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Replies that a viewer may be waiting for.
const MAX_ASKED: u32 = 64;

/// What a viewer says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    /// It has drawn a frame, and can take another one.
    Drawn,
    /// Keep the frame that I look at.
    Save { request: u64, frame_id: u64 },
    /// Anything else is a command for those who follow.
    #[serde(untagged)]
    Command(Asked),
}

/// A command with the number that its reply has.
#[derive(Debug, Deserialize)]
struct Asked {
    request: u64,
    #[serde(flatten)]
    command: serde_json::Map<String, serde_json::Value>,
}

/// A state as viewers get it.
pub(super) fn state_message(state: &State) -> String {
    let mut value = serde_json::to_value(state).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.insert("type".into(), "state".into());
    }
    value.to_string()
}

fn reply(request: u64, result: Result<Option<String>, String>) -> String {
    match result {
        Ok(None) => json!({"type": "reply", "request": request, "ok": true}),
        Ok(Some(path)) => json!({"type": "reply", "request": request, "ok": true, "path": path}),
        Err(reason) => json!({"type": "reply", "request": request, "ok": false, "reason": reason}),
    }
    .to_string()
}

/// Serves a viewer until it goes.
pub(super) async fn view(mut socket: WebSocket, house: Arc<House>, picture: Picture) {
    let _viewing = house.tap.enter(picture);
    let mut frames = house.tap.subscribe();
    let mut states = house.states.clone();
    let (told, mut replies) = unbounded_channel();
    // The state of this moment, so that nobody looks at an empty page for a second.
    let now = state_message(&house.subject.state());
    if !send(&mut socket, Message::Text(now.into())).await {
        return;
    }
    states.mark_unchanged();
    let (mut credit, mut asked) = (CREDIT, 0);
    loop {
        let message = tokio::select! {
            said = socket.recv() => {
                match said {
                    Some(Ok(Message::Text(text))) => {
                        hear(&text, &house, &told, &mut credit, &mut asked);
                        continue;
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    // Pings are answered underneath; bytes mean nothing.
                    Some(Ok(_)) => continue,
                }
            }
            changed = frames.changed(), if credit > 0 => {
                if changed.is_err() {
                    return;
                }
                let shown = frames.borrow_and_update().clone();
                let Some(bytes) = shown.as_ref().and_then(|shown| shown.message(picture)) else { continue };
                credit -= 1;
                Message::Binary(bytes.clone())
            }
            changed = states.changed() => {
                if changed.is_err() {
                    return;
                }
                let state = Arc::clone(&states.borrow_and_update());
                Message::Text(Utf8Bytes::from(&*state))
            }
            Some(text) = replies.recv() => {
                asked -= 1;
                Message::Text(Utf8Bytes::from(text))
            }
        };
        if !send(&mut socket, message).await {
            return;
        }
    }
}

/// Whether it was taken in time.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(())))
}

fn hear(text: &str, house: &Arc<House>, told: &UnboundedSender<String>, credit: &mut u32, asked: &mut u32) {
    let said = match serde_json::from_str(text) {
        Ok(Said::Drawn) => {
            *credit = (*credit + 1).min(CREDIT);
            return;
        }
        Ok(said) => said,
        Err(_) => Said::Command(Asked { request: 0, command: serde_json::Map::default() }),
    };
    // Somebody who asks faster than replies are taken is not answered.
    if *asked >= MAX_ASKED {
        return;
    }
    *asked += 1;
    let told = told.clone();
    match said {
        Said::Drawn => {}
        Said::Save { request, frame_id } => {
            let house = Arc::clone(house);
            tokio::task::spawn_blocking(move || {
                let _ = told.send(reply(request, house.subject.save(frame_id).map(Some)));
            });
        }
        Said::Command(Asked { request, command }) => {
            match serde_json::from_value::<PromptCommand>(command.into()) {
                Ok(command) => house.subject.ask(
                    command,
                    Box::new(move |result| {
                        let result = result.map(|()| None).map_err(|refused| refused.to_string());
                        let _ = told.send(reply(request, result));
                    }),
                ),
                Err(error) => {
                    let _ = told.send(reply(request, Err(format!("this is no command: {error}"))));
                }
            }
        }
    }
}
