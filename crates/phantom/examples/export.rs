//! Writes frames with their truth to a folder, for training and for looking at.
//!
//! ```text
//! cargo run --release -p ultramotion-phantom --example export -- --out DIR --seeds 0..300 --frames-per-seed 5 --size 400x400
//! ```
//! gives `images/NNNNNN.png` (8-bit grey), `masks/NNNNNN.png` (8-bit object ids, 0 for none) and `truth.jsonl`, one
//! line an image. The frames of a seed are spread over its movement.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ultramotion_phantom::{Phantom, PhantomConfig, PhantomFrame};

#[derive(Parser)]
struct Options {
    /// Folder to write; made if missing.
    #[arg(long)]
    out: PathBuf,
    /// Seeds, first..end (end not included).
    #[arg(long, default_value = "0..10")]
    seeds: String,
    #[arg(long, default_value_t = 5)]
    frames_per_seed: u64,
    /// Frames between two that are written.
    #[arg(long, default_value_t = 83)]
    stride: u64,
    /// Pixels, WIDTHxHEIGHT.
    #[arg(long, default_value = "400x400")]
    size: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (first, end) = options.seeds.split_once("..").context("--seeds is not like 0..300")?;
    let (first, end): (u64, u64) = (first.parse().context("--seeds")?, end.parse().context("--seeds")?);
    ensure!(first < end, "--seeds {}..{} is empty", first, end);
    let (width, height) = options.size.split_once('x').context("--size is not like 400x400")?;
    let (width, height) = (width.parse().context("--size")?, height.parse().context("--size")?);
    for folder in ["images", "masks"] {
        let path = options.out.join(folder);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let truth_path = options.out.join("truth.jsonl");
    let mut truth = std::io::BufWriter::new(
        std::fs::File::create(&truth_path)
            .with_context(|| format!("cannot write {}", truth_path.display()))?,
    );
    let mut frame = PhantomFrame::default();
    let mut number = 0;
    for seed in first..end {
        let phantom = Phantom::new(PhantomConfig { seed, width, height, ..Default::default() })?;
        for i in 0..options.frames_per_seed {
            phantom.render_into(i * options.stride, &mut frame);
            let name = format!("{number:06}.png");
            for (folder, plane) in [("images", &frame.pixels), ("masks", &frame.instances)] {
                let path = options.out.join(folder).join(&name);
                image::save_buffer(&path, plane, width as u32, height as u32, image::ColorType::L8)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            let objects: Vec<_> = frame
                .objects
                .iter()
                .map(|o| serde_json::json!({"label": o.class.label(), "box_xyxy": o.box_xyxy, "mask_value": o.id}))
                .collect();
            let line = serde_json::json!({
                "image": name, "mask": name, "seed": seed, "frame": frame.index,
                "spacing_mm": frame.spacing_mm, "objects": objects,
            });
            writeln!(truth, "{line}")?;
            number += 1;
        }
    }
    truth.flush()?;
    Ok(())
}
