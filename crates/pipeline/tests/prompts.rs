//! What somebody points at: outlined beside what the detector finds, within the same budget.
#![allow(clippy::unwrap_used)]

mod small;

use small::{HEIGHT, WIDTH, grey, options, picture, pipeline};
use ultramotion_engine::Device;
use ultramotion_models::segmenter::{ObjectPrompt, PredictOptions, PredictorOptions, SamPredictor};
use ultramotion_models::zoo::Segmenter;
use ultramotion_pipeline::{FIRST_PROMPT_ID, Orchestrator, PipelineOptions};
use ultramotion_tracking::follow::FollowConfig;
use ultramotion_types::{
    DetectedObject, FrameView, Prompt, PromptCommand, PromptError, PromptPoint, Residency, ResultPacket,
};

/// The networks find noise, of which nothing is believed without this.
fn pointing(residency: Residency) -> PipelineOptions {
    let follow =
        FollowConfig { least_iou: 0.0, most_of_frame: 1.0, most_growth: 1000.0, ..FollowConfig::default() };
    PipelineOptions { max_prompts: 3, residency, follow, ..options() }
}

fn prompted(packet: &ResultPacket) -> Vec<&DetectedObject> {
    packet.objects.iter().filter(|object| object.prompted).collect()
}

fn next<'p>(pipeline: &'p mut Orchestrator, number: u64, pixels: &[u8]) -> &'p ResultPacket {
    pipeline.process(&grey(number, pixels)).unwrap()
}

#[test]
fn room_for_prompts_changes_nothing_of_what_is_found() {
    for residency in [Residency::Device, Residency::Host] {
        let mut without = pipeline(2, PipelineOptions { residency, ..options() });
        let mut with = pipeline(2, pointing(residency));
        for number in 0..5 {
            let pixels = picture(number);
            let expected = next(&mut without, number, &pixels).clone();
            if number == 3 {
                with.prompt(&PromptCommand::Follow(Prompt::at(30.0, 20.0))).unwrap();
            }
            let found = next(&mut with, number, &pixels);
            let objects = found.objects.len() - prompted(found).len();
            assert_eq!(found.objects[..objects], expected.objects, "{residency}, frame {number}");
            assert_eq!(found.mask_bits()[..expected.mask_bits().len()], *expected.mask_bits());
            assert_eq!(prompted(found).len(), usize::from(number >= 3), "{residency}, frame {number}");
        }
    }
}

#[test]
fn what_is_pointed_at_is_outlined_as_the_predictor_does() {
    let (pixels, by_point, by_box) =
        (picture(4), Prompt::at(22.0, 17.0), Prompt::within([20.0, 10.0, 41.0, 30.0]));
    let segmenter = Segmenter::open("mobile_sam").unwrap().with_input_size(64).unwrap();
    let mut predictor = SamPredictor::new(&Device::cpu(2), segmenter, PredictorOptions::default()).unwrap();
    predictor.set_image(&pixels, WIDTH, HEIGHT, 1).unwrap();
    let expected = predictor.predict(
        &[ObjectPrompt::from_point(22.0, 17.0), ObjectPrompt::from_box([20.0, 10.0, 41.0, 30.0])],
        PredictOptions::default(),
    );
    let expected = match expected {
        Ok(masks) => (0..2).map(|i| (masks.get(i, 0).iou, masks.get(i, 0).area_px)).collect::<Vec<_>>(),
        Err(error) => panic!("{error}"),
    };
    for residency in [Residency::Device, Residency::Host] {
        let mut pipeline = pipeline(2, pointing(residency));
        for prompt in [&by_point, &by_box] {
            pipeline.prompt(&PromptCommand::Follow(prompt.clone())).unwrap();
        }
        let packet = next(&mut pipeline, 4, &pixels);
        for (object, &(iou, area_px)) in prompted(packet).into_iter().zip(&expected) {
            assert!((object.mask_score - iou).abs() < 1e-4, "{} instead of {iou}", object.mask_score);
            assert!(
                object.mask_area_px.abs_diff(area_px as usize) <= 2,
                "{} instead of {area_px}",
                object.mask_area_px
            );
            assert_eq!((packet.label(object.class), object.confirmed), ("user", true));
        }
        assert_eq!(prompted(packet).len(), 2);
    }
}

#[test]
fn commands_are_obeyed_or_refused_with_a_reason() {
    let mut pipeline = pipeline(2, pointing(Residency::Device));
    let ids =
        |packet: &ResultPacket| prompted(packet).iter().map(|object| object.track_id).collect::<Vec<_>>();
    let follow = |x: f32| PromptCommand::Follow(Prompt::at(x, 20.0));
    let pixels = picture(0);
    // Before the first frame its size is not known: what does not lie in it is left out when it comes.
    pipeline.prompt(&follow(5000.0)).unwrap();
    pipeline.prompt(&follow(30.0)).unwrap();
    assert_eq!(ids(next(&mut pipeline, 0, &pixels)), [FIRST_PROMPT_ID + 1]);
    assert!(matches!(pipeline.prompt(&follow(61.0)), Err(PromptError::Outside { .. })));
    assert_eq!(pipeline.prompt(&follow(f32::NAN)), Err(PromptError::NotANumber));
    let named = Prompt::within([10.0, 10.0, 40.0, 40.0]).labelled("tendon");
    pipeline.prompt(&PromptCommand::Follow(named)).unwrap();
    pipeline.prompt(&follow(40.0)).unwrap();
    assert_eq!(pipeline.prompt(&follow(50.0)), Err(PromptError::Full(3)));
    let packet = next(&mut pipeline, 1, &pixels);
    let found = ids(packet);
    assert_eq!(found.len(), 3);
    let labels: Vec<&str> = prompted(packet).iter().map(|object| packet.label(object.class)).collect();
    assert_eq!(labels.iter().filter(|label| **label == "tendon").count(), 1, "{labels:?}");
    let point = PromptPoint { x: 25.0, y: 25.0, positive: false };
    assert_eq!(
        pipeline.prompt(&PromptCommand::Refine { track_id: 7, point }),
        Err(PromptError::Unknown(7)),
        "the detector's are not ours to refine"
    );
    pipeline.prompt(&PromptCommand::Refine { track_id: found[0], point }).unwrap();
    let let_go =
        |track_id, label: Option<&str>| PromptCommand::LetGo { track_id, label: label.map(str::to_owned) };
    assert_eq!(pipeline.prompt(&let_go(Some(7), None)), Err(PromptError::Unknown(7)));
    pipeline.prompt(&let_go(None, Some("tendon"))).unwrap();
    assert_eq!(ids(next(&mut pipeline, 2, &pixels)).len(), 2);
    pipeline.prompt(&let_go(None, None)).unwrap();
    assert!(ids(next(&mut pipeline, 3, &pixels)).is_empty());
    pipeline.prompt(&follow(30.0)).unwrap();
    let again = ids(next(&mut pipeline, 4, &pixels));
    assert!(again.iter().all(|id| !found.contains(id)), "no identity is given twice: {again:?}, {found:?}");
    pipeline.begin_stream().unwrap();
    assert!(ids(next(&mut pipeline, 5, &pixels)).is_empty(), "another stream has nothing to do with it");

    let mut without = small::pipeline(1, options());
    assert_eq!(without.prompt(&follow(1.0)), Err(PromptError::Off));
}

#[test]
fn what_is_followed_outlives_a_change_of_size_and_of_residency() {
    let mut pipeline = pipeline(2, pointing(Residency::Device));
    let pixels = picture(0);
    pipeline.prompt(&PromptCommand::Follow(Prompt::within([10.0, 10.0, 40.0, 40.0]))).unwrap();
    let id = prompted(next(&mut pipeline, 0, &pixels))[0].track_id;
    let double: Vec<u8> =
        pixels.chunks(WIDTH).flat_map(|row| [row, row].concat()).flat_map(|p| [p, p]).collect();
    let frame = FrameView { width: 2 * WIDTH, height: 2 * HEIGHT, pixels: &double[..], ..grey(1, &pixels) };
    let packet = pipeline.process(&frame).unwrap();
    assert_eq!(prompted(packet)[0].track_id, id);
    pipeline.set_residency(Residency::Host);
    assert_eq!(prompted(next(&mut pipeline, 2, &pixels))[0].track_id, id);
}

#[test]
#[cfg(feature = "cuda")]
fn it_is_the_same_on_a_gpu() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let kernels = ["models/src/kernels", "tracking/src/ops/kernels"].map(|folder| crates.join(folder));
    let Some(device) =
        ultramotion_engine::testing::device_for_tests(&kernels, ultramotion_engine::Precision::F32)
    else {
        return;
    };
    let mut on_gpu = small::pipeline_on(device, pointing(Residency::Device));
    let mut on_cpu = pipeline(2, pointing(Residency::Device));
    for number in 0..3 {
        let pixels = picture(number);
        let mut found = Vec::new();
        for pipeline in [&mut on_gpu, &mut on_cpu] {
            if number == 0 {
                pipeline.prompt(&PromptCommand::Follow(Prompt::at(22.0, 17.0))).unwrap();
            }
            let packet = next(pipeline, number, &pixels);
            let transfers = packet.transfers;
            assert_eq!(
                [transfers.h2d, transfers.d2h, transfers.host_syncs, transfers.allocations],
                [1, 1, 1, 0]
            );
            let object = prompted(packet)[0];
            found.push((object.mask_score, object.mask_area_px as f32));
        }
        assert!((found[0].0 - found[1].0).abs() < 1e-3, "frame {number}: {found:?}");
        assert!((found[0].1 - found[1].1).abs() <= 0.02 * found[1].1 + 2.0, "frame {number}: {found:?}");
    }
}
