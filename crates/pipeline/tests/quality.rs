//! Scores of how well objects show, as packets have them, and what the gate does with them.
#![allow(clippy::unwrap_used)]

mod small;

use small::{grey, options, picture, pipeline};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_pipeline::{Orchestrator, PipelineError, PipelineOptions};
use ultramotion_tracking::quality::QualityConfig;
use ultramotion_tracking::track::TrackerConfig;
use ultramotion_types::{MatcherMode, Quality, Residency, ResultPacket, Visibility};

fn packets(options: PipelineOptions) -> Vec<ResultPacket> {
    let mut pipeline = pipeline(2, options);
    (0..12).map(|number| pipeline.process(&grey(number, &picture(number))).unwrap().clone()).collect()
}

fn gated(least: f32) -> PipelineOptions {
    let quality = QualityConfig { gate: true, least, again: 1.0, ..QualityConfig::default() };
    PipelineOptions { tracker: TrackerConfig { quality, ..TrackerConfig::default() }, ..options() }
}

#[test]
fn every_object_has_scores_in_both_residencies_and_none_without_tracks_on_the_device() {
    let resident = packets(options());
    let staged = packets(PipelineOptions { residency: Residency::Host, ..options() });
    let mut compared = 0;
    for (a, b) in resident.iter().zip(&staged) {
        assert_eq!(a.objects, b.objects, "frame {}", a.frame_id);
        for object in &a.objects {
            let Quality { edge, contrast, continuity, stability, likeness, mean } = object.quality.unwrap();
            for score in [edge, contrast, continuity, stability, likeness, mean] {
                assert!((0.0..=1.0).contains(&score), "{:?}", object.quality);
            }
            compared += usize::from(stability < 1.0);
        }
    }
    assert!(compared > 5, "objects are compared with what they were: {compared}");
    let on_host = packets(PipelineOptions { matcher: MatcherMode::Host, ..options() });
    assert!(on_host.iter().flat_map(|packet| &packet.objects).all(|object| object.quality.is_none()));
}

#[test]
fn the_gate_changes_the_state_and_nothing_else() {
    let (open, shut) = (packets(options()), packets(gated(1.0)));
    assert!(open.iter().any(|packet| packet.state == Visibility::Visible));
    assert!(shut.iter().all(|packet| packet.state != Visibility::Visible), "nothing is that good");
    for (open, shut) in open.iter().zip(&shut) {
        assert_eq!(open.objects.len(), shut.objects.len());
        assert_eq!(open.mask_bits(), shut.mask_bits(), "frame {}", open.frame_id);
        let same = |packet: &ResultPacket| {
            packet
                .objects
                .iter()
                .map(|o| (o.track_id, o.confirmed, o.box_xyxy, o.mask_area_px))
                .collect::<Vec<_>>()
        };
        assert_eq!(same(open), same(shut));
    }
    let all_pass = packets(gated(0.0));
    for (open, passed) in open.iter().zip(&all_pass).filter(|(open, _)| open.state == Visibility::Visible) {
        assert_eq!(passed.state, Visibility::Visible, "frame {}", open.frame_id);
    }
}

#[test]
fn a_gate_without_scores_is_refused() {
    let detector = Detector::open("dfine_n").unwrap().with_input_hw([64, 64]).unwrap();
    let segmenter = Segmenter::open("mobile_sam").unwrap().with_input_size(64).unwrap();
    let options = PipelineOptions { matcher: MatcherMode::Host, ..gated(0.5) };
    let device = ultramotion_engine::Device::cpu(1);
    let refused = Orchestrator::new(device, detector, segmenter, options).err().unwrap();
    assert!(matches!(refused, PipelineError::Option { option: "tracker.quality.gate", .. }), "{refused}");
}
