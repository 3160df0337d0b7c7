//! The live page in a browser, from a simulated scanner to what somebody sees and points at.
//!
//! It is driven through WebDriver, by `chromedriver` and the Chromium that it finds (Debian: `chromium` and `chromium-driver`);
//! where they are missing the test says so. The detector is told to ignore everything: what is seen is what was pointed at.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use ultramotion_phantom::{Phantom, PhantomConfig, PhantomFrame};
use ultramotion_types::{BitMask, CocoRle};

/// Longer than anything here takes, unless there is a defect.
const SOON: Duration = Duration::from_secs(90);
const SEED: u64 = 2;
const FRAMES_FOLLOWED: usize = 100;

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(program: &str, arguments: &[&str]) -> std::io::Result<Running> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map(Running)
}

fn scanner(port: u16) -> Running {
    let address = format!("127.0.0.1:{port}");
    let source = format!("phantom:{SEED}");
    let arguments = [
        "simulate",
        &source,
        "--listen",
        &address,
        "--rate",
        "8",
        "--timestamps",
        "source",
        "--frames",
        "100000",
    ];
    start(env!("CARGO_BIN_EXE_ultramotion"), &arguments).unwrap()
}

/// The service, and the address of its page.
fn service(scanner: u16) -> (Running, String) {
    let scanner = format!("127.0.0.1:{scanner}");
    let arguments = [
        "serve",
        "--connect",
        &scanner,
        "--listen",
        "127.0.0.1:0",
        "--page",
        "127.0.0.1:0",
        "--score-threshold",
        "1",
        "--device",
        "cpu",
    ];
    let mut service = start(env!("CARGO_BIN_EXE_ultramotion"), &arguments).unwrap();
    let mut lines = BufReader::new(service.0.stderr.take().unwrap()).lines();
    let page = loop {
        let line = lines.next().expect("the page's address").unwrap();
        if let Some(rest) = line.strip_prefix("page at ") {
            break rest.split(',').next().unwrap().to_owned();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    (service, page)
}

struct Browser {
    client: Client,
    _driver: Running,
}

impl Browser {
    /// `None` where there is none.
    async fn open() -> Option<Self> {
        let port = free_port();
        let Ok(driver) = start("chromedriver", &[&format!("--port={port}")]) else {
            println!("skipped: chromedriver is not installed (Debian: chromium and chromium-driver)");
            return None;
        };
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "chromedriver listens");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let options =
            json!({"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]});
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".into(), options);
        capabilities.insert("goog:loggingPrefs".into(), json!({"browser": "ALL"}));
        let connector = hyper_util::client::legacy::connect::HttpConnector::new();
        let client = ClientBuilder::new(connector)
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await;
        match client {
            Ok(client) => Some(Browser { client, _driver: driver }),
            Err(error) => {
                println!("skipped: chromedriver finds no Chromium: {error}");
                None
            }
        }
    }

    async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Runs a script until what it gives is as wanted.
    async fn wait(&self, what: &str, script: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let value = self.run(script).await;
            if wanted(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "waited for {what}: {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn press(&self, id: &str) {
        self.client.find(Locator::Id(id)).await.unwrap().click().await.unwrap();
    }

    /// Clicks at a point of the frame.
    async fn point_at(&self, x: f64, y: f64) {
        let rect = self
            .run(
                "const r = document.getElementById('overlay').getBoundingClientRect(), i = ultramotion.frame.image; \
                 return [r.left, r.top, r.width / i.width, r.height / i.height]",
            )
            .await;
        let [left, top, per_x, per_y] = [0, 1, 2, 3].map(|i| rect[i].as_f64().unwrap());
        let at = PointerAction::MoveTo { duration: None, x: left + x * per_x, y: top + y * per_y };
        let mouse = MouseActions::new("mouse".into())
            .then(at)
            .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
            .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        self.client.perform_actions(mouse).await.unwrap();
    }
}

fn mask_of(object: &Value) -> BitMask {
    let rle: CocoRle = serde_json::from_value(object["mask"].clone()).unwrap();
    rle.decode().unwrap()
}

/// The phantom's frame of a packet, by its time.
fn truth_of(phantom: &Phantom, packet: &Value, frame: &mut PhantomFrame) {
    let index = (packet["timestamp"].as_f64().unwrap() * phantom.config().frames_per_second).round();
    phantom.render_into(index as u64, frame);
}

fn middle(frame: &PhantomFrame, id: u8) -> [f64; 2] {
    let inside = frame.instances.iter().enumerate().filter(|(_, instance)| **instance == id);
    let (mut x, mut y, mut count) = (0.0, 0.0, 0.0);
    for (pixel, _) in inside {
        x += (pixel % frame.width) as f64 + 0.5;
        y += (pixel / frame.width) as f64 + 0.5;
        count += 1.0;
    }
    [x / count, y / count]
}

fn overlap(mask: &BitMask, frame: &PhantomFrame, id: u8) -> f64 {
    let (mut both, mut any) = (0u32, 0u32);
    for (pixel, &instance) in frame.instances.iter().enumerate() {
        let found = mask.view().contains(pixel % frame.width, pixel / frame.width);
        both += u32::from(found && instance == id);
        any += u32::from(found || instance == id);
    }
    f64::from(both) / f64::from(any.max(1))
}

/// Whether what is painted, in pixels of the frame, is the outline of the masks, and all of it.
fn assert_outlined(painted: &[[f64; 2]], masks: &[BitMask], width: usize, height: usize) {
    let inside = |x: i64, y: i64| {
        let (x, y) = (usize::try_from(x).ok(), usize::try_from(y).ok());
        x.zip(y)
            .is_some_and(|(x, y)| x < width && y < height && masks.iter().any(|m| m.view().contains(x, y)))
    };
    let mut edges = Vec::new();
    for y in 0..=height as i64 {
        for x in 0..=width as i64 {
            if inside(x, y) != inside(x - 1, y) {
                edges.push([x as f64, y as f64 + 0.5]);
            }
            if inside(x, y) != inside(x, y - 1) {
                edges.push([x as f64 + 0.5, y as f64]);
            }
        }
    }
    assert!(edges.len() > 40 && painted.len() > 40, "{} edges, {} painted", edges.len(), painted.len());
    let near = |point: &[f64; 2], others: &[[f64; 2]]| {
        others.iter().any(|other| (other[0] - point[0]).abs() < 2.5 && (other[1] - point[1]).abs() < 2.5)
    };
    let astray = painted.iter().filter(|point| !near(point, &edges)).count();
    let missing = edges.iter().filter(|edge| !near(edge, painted)).count();
    assert_eq!((astray, missing), (0, 0), "of {} painted and {} edges", painted.len(), edges.len());
}

#[tokio::test]
async fn the_page_shows_the_stream_and_follows_a_click() {
    let Some(browser) = Browser::open().await else { return };
    let port = free_port();
    let mut simulated = scanner(port);
    let (_service, page) = service(port);
    browser.client.goto(&page).await.unwrap();
    let frame_id = "return window.ultramotion?.frame?.packet.frame_id ?? null";
    let first = browser.wait("a frame", frame_id, |id| id.is_u64()).await;
    browser.wait("the picture to move", frame_id, |id| id.as_u64() > first.as_u64()).await;
    let answered = "return ultramotion.state?.frames.answered ?? 0";
    let before = browser.run(answered).await.as_u64();
    browser.wait("the counters", answered, |now| now.as_u64() > before.max(Some(0))).await;
    let research = browser.run("return document.querySelector('.research').checkVisibility()").await;
    assert_eq!(research, true, "that it is research software is in view");

    // A click in a vessel, which nothing else finds.
    let phantom = Phantom::new(PhantomConfig { seed: SEED, ..PhantomConfig::default() }).unwrap();
    let mut truth = phantom.frame(0);
    let vessel = truth.objects[0].id;
    let packet = browser.run("return ultramotion.frame.packet").await;
    truth_of(&phantom, &packet, &mut truth);
    let [x, y] = middle(&truth, vessel);
    browser.point_at(x, y).await;
    let followed = "const {packet} = ultramotion.frame; return {id: packet.frame_id, timestamp: packet.timestamp, \
                    objects: packet.objects.map(({label, prompt, track_id, mask}) => ({label, prompt, track_id, mask}))}";
    let shown =
        browser.wait("what was clicked", followed, |frame| frame["objects"][0]["prompt"] == true).await;
    let identity = shown["objects"][0]["track_id"].clone();
    let (mut last, mut overlaps) = (0, Vec::new());
    while overlaps.len() < FRAMES_FOLLOWED {
        let shown = browser.wait("the next frame", followed, |frame| frame["id"].as_u64() > Some(last)).await;
        last = shown["id"].as_u64().unwrap();
        truth_of(&phantom, &shown, &mut truth);
        let object =
            shown["objects"].as_array().unwrap().iter().find(|object| object["track_id"] == identity);
        let object = object.unwrap_or_else(|| panic!("it is followed: {shown}"));
        assert_eq!(object["label"], "user");
        overlaps.push(overlap(&mask_of(object), &truth, vessel));
    }
    let least = overlaps.iter().copied().fold(1.0, f64::min);
    println!("IoU with the truth over {FRAMES_FOLLOWED} frames: {least:.2} at least");
    assert!(least >= 0.8, "{overlaps:.2?}");

    // Outlines are those of the packet's masks: with nothing else drawn, and time stopped.
    for id in ["layer-labels", "layer-scores", "pause"] {
        browser.press(id).await;
    }
    let drawn = browser
        .run(
            "const {frame} = ultramotion, {width, height} = frame.image, canvas = document.getElementById('overlay'); \
             if (Number(canvas.dataset.frameId) !== frame.packet.frame_id) return null; \
             const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), painted = []; \
             for (let i = 3; i < data.length; i += 4) if (data[i] > 100) { const p = (i - 3) / 4; \
               painted.push([(p % canvas.width + 0.5) / canvas.width * width, (Math.floor(p / canvas.width) + 0.5) / canvas.height * height]); } \
             return {width, height, painted, objects: frame.packet.objects.map(({mask, box_xyxy}) => ({mask, box_xyxy}))}",
        )
        .await;
    let objects = drawn["objects"].as_array().unwrap();
    let masks: Vec<BitMask> = objects.iter().map(mask_of).collect();
    // The cross in the middle marks what was pointed at.
    let boxes: Vec<[f64; 4]> =
        objects.iter().map(|object| serde_json::from_value(object["box_xyxy"].clone()).unwrap()).collect();
    let is_cross = |[x, y]: &[f64; 2]| {
        let at =
            |[l, t, r, b]: &[f64; 4]| ((l + r) / 2.0 - x).abs() < 13.0 && ((t + b) / 2.0 - y).abs() < 13.0;
        boxes.iter().any(at)
    };
    let mut painted: Vec<[f64; 2]> = serde_json::from_value(drawn["painted"].clone()).unwrap();
    painted.retain(|point| !is_cross(point));
    let size = |key: &str| drawn[key].as_u64().unwrap() as usize;
    assert_outlined(&painted, &masks, size("width"), size("height"));
    let stopped = browser.run(frame_id).await;
    browser.press("back").await;
    browser.wait("a step back", frame_id, |id| id.as_u64() < stopped.as_u64()).await;
    browser.press("pause").await;
    browser.wait("the stream to go on", frame_id, |id| id.as_u64() > stopped.as_u64()).await;

    // Letting go.
    browser.press("let-go").await;
    let prompted = "return ultramotion.frame.packet.objects.filter(o => o.prompt).length";
    browser.wait("nothing to be followed", prompted, |count| *count == 0).await;

    // The scanner goes, and comes back.
    let state = "return document.getElementById('state').dataset.state";
    drop(std::mem::replace(&mut simulated, start("true", &[]).unwrap()));
    browser.wait("the loss of the scanner", state, |state| *state == "SOURCE_LOST").await;
    browser
        .wait("the banner", "return document.getElementById('banner').hidden", |hidden| *hidden == false)
        .await;
    let _simulated = scanner(port);
    browser.wait("its return", state, |state| *state != "SOURCE_LOST").await;
    let lost = browser.run(frame_id).await;
    browser.wait("the picture to move again", frame_id, |id| id.as_u64() > lost.as_u64()).await;

    // Nothing was asked of anybody else.
    let hosts = browser
        .run("return performance.getEntriesByType('resource').map(e => new URL(e.name).host).filter(h => h !== location.host)")
        .await;
    assert_eq!(hosts, json!([]));
    browser.client.clone().close().await.unwrap();
}
