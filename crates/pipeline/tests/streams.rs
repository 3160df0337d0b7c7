//! What holds from one frame to the next: identities through changes of format, memory, the preparation of programs.

mod small;

use small::{HEIGHT, WIDTH, grey, options, picture, pipeline};
use ultramotion_pipeline::{Orchestrator, PipelineError, PipelineOptions};
use ultramotion_types::{FrameError, FrameView, MatcherMode, PixelFormat, Residency};

fn ids(pipeline: &mut Orchestrator, frame: &FrameView<'_>) -> Vec<i32> {
    pipeline.process(frame).expect("a frame that fits").objects.iter().map(|o| o.track_id).collect()
}

#[test]
fn tracks_outlive_a_change_from_grey_to_colour_and_back() {
    for residency in [Residency::Device, Residency::Host] {
        let mut pipeline = pipeline(2, PipelineOptions { residency, ..options() });
        let pixels = picture(0);
        let colour: Vec<u8> = pixels.iter().flat_map(|&p| [p; 3]).collect();
        let first = ids(&mut pipeline, &grey(0, &pixels));
        assert!(!first.is_empty());
        for id in 1..6 {
            let mut frame = grey(id, &pixels);
            if id % 2 == 1 {
                frame = FrameView { pixel_format: PixelFormat::Rgb8, pixels: &colour, ..frame };
            }
            assert_eq!(ids(&mut pipeline, &frame), first, "{residency}, frame {id}");
        }
    }
}

#[test]
fn a_stream_that_begins_knows_nothing_of_the_one_before() {
    for matcher in [MatcherMode::Exact, MatcherMode::Host] {
        let mut pipeline = pipeline(2, PipelineOptions { matcher, ..options() });
        let stream = |pipeline: &mut Orchestrator| {
            let found = |id| {
                let packet = pipeline.process(&grey(id, &picture(id))).unwrap();
                packet.objects.iter().map(|o| (o.track_id, o.confirmed)).collect::<Vec<_>>()
            };
            (3..9).map(found).collect::<Vec<_>>()
        };
        let first = stream(&mut pipeline);
        assert_ne!(stream(&mut pipeline), first, "{matcher}: tracks and times go on");
        pipeline.begin_stream().unwrap();
        assert_eq!(stream(&mut pipeline), first, "{matcher}");
    }
}

#[test]
fn tracks_outlive_programs_that_make_room_for_others() {
    let mut pipeline = pipeline(2, options());
    // The detector sees a blank frame alike at any size; more sizes than programs are kept.
    let blank = vec![90u8; 100 * 100];
    let mut first = None;
    for id in 0..14u64 {
        let (width, height) = (40 + 10 * (id as usize % 7), 40);
        let frame = FrameView { width, height, pixels: &blank[..width * height], ..grey(id, &blank) };
        let got = ids(&mut pipeline, &frame);
        let packet = pipeline.process(&FrameView { timestamp_s: frame.timestamp_s + 0.01, ..frame }).unwrap();
        assert_eq!((packet.width, packet.height), (width, height));
        for i in 0..packet.objects.len() {
            let mask = packet.mask(i).unwrap();
            assert_eq!((mask.width(), mask.height()), (width, height));
            assert_eq!(mask.bits().len(), height * width.div_ceil(8));
            let area =
                (0..height).map(|y| (0..width).filter(|&x| mask.contains(x, y)).count()).sum::<usize>();
            assert_eq!(area, packet.objects[i].mask_area_px, "area of object {i} in frame {id}");
        }
        assert_eq!(packet.mask(packet.objects.len()), None);
        assert!(!got.is_empty());
        assert_eq!(&got, first.get_or_insert_with(|| got.clone()), "frame {id}");
    }
}

/// Frames of a new size until they are taken; meanwhile those of the old size go on. How many of the old size there were.
fn until_compiled(pipeline: &mut Orchestrator, old: &FrameView<'_>, new: &FrameView<'_>) -> u64 {
    for meanwhile in 0.. {
        match pipeline.process(new) {
            Ok(packet) => {
                assert_eq!((packet.width, packet.height), (new.width, new.height));
                return meanwhile;
            }
            Err(PipelineError::Frame(FrameError::Compiling { width, height })) => {
                assert_eq!((width, height), (new.width, new.height));
            }
            Err(error) => panic!("{error}"),
        }
        // Its budget is checked: what is compiled beside it must not count.
        assert!(!ids(pipeline, old).is_empty(), "frames of a known size go on");
    }
    unreachable!("it ends or panics")
}

#[test]
fn a_new_size_is_compiled_beside_the_stream() {
    for residency in [Residency::Device, Residency::Host] {
        let mut pipeline = pipeline(2, PipelineOptions { residency, ..options() });
        pipeline.compile_aside(usize::MAX);
        let (pixels, wide) = (picture(0), picture(0).repeat(2));
        let old = grey(0, &pixels);
        // The first size of all has nothing to go on beside it.
        let first = ids(&mut pipeline, &old);
        let allocations = |pipeline: &Orchestrator| pipeline.device().ledger().counts().allocations;
        let before = allocations(&pipeline);
        let new = FrameView { height: 2 * old.height, pixels: &wide[..], ..old };
        assert!(until_compiled(&mut pipeline, &old, &new) > 0, "{residency}: nothing waited");
        assert_eq!(ids(&mut pipeline, &old), first, "{residency}: tracks go on");
        assert!(allocations(&pipeline) > before, "{residency}: they count once it is in use");
    }
}

#[test]
fn programs_share_the_memory_that_they_may_have() {
    let mut pipeline = pipeline(2, options());
    let pixels = picture(0).repeat(8);
    let sized = |times: usize| FrameView {
        height: times * HEIGHT,
        pixels: &pixels[..times * WIDTH * HEIGHT],
        ..grey(0, &pixels)
    };
    pipeline.process(&sized(1)).unwrap();
    let one = pipeline.memory_bytes();
    pipeline.process(&sized(2)).unwrap();
    let most = pipeline.memory_bytes() + (pipeline.memory_bytes() - one) / 2;
    pipeline.compile_aside(most);
    for times in 3..=8 {
        let known = sized(times - 1);
        until_compiled(&mut pipeline, &known, &sized(times));
        assert!(pipeline.memory_bytes() <= most, "{times}: {} of {most}", pipeline.memory_bytes());
        assert!(pipeline.memory_bytes() > one, "{times}: two have room");
    }
    pipeline.compile_aside(1);
    until_compiled(&mut pipeline, &sized(8), &sized(1));
    ids(&mut pipeline, &sized(1));
}

#[test]
fn programs_for_several_sizes_share_their_weights() {
    let pixels = [90; 160 * 120];
    let mut pipeline = pipeline(2, options());
    let mut memory_after = |width, height| {
        let frame = FrameView { width, height, pixels: &pixels[..width * height], ..grey(0, &pixels) };
        pipeline.prepare(&frame).unwrap();
        pipeline.memory_bytes()
    };
    let first = memory_after(160, 120);
    let others = [(120, 120), (100, 80)].map(|(width, height)| memory_after(width, height));
    assert!(others[1] - first < first / 2, "{first} bytes for one size, {others:?} with others");
}

#[test]
fn prepare_compiles_and_changes_nothing_else() {
    let pixels = picture(3);
    let mut prepared = pipeline(2, options());
    assert_eq!(prepared.memory_bytes(), 0);
    prepared.prepare(&grey(0, &pixels)).unwrap();
    let memory = prepared.memory_bytes();
    assert!(memory > 0);
    let allocations = prepared.device().ledger().counts().allocations;
    let mut plain = pipeline(2, options());
    for id in 0..3 {
        let frame = grey(id, &pixels);
        let (a, b) = (prepared.process(&frame).unwrap(), plain.process(&frame).unwrap());
        assert_eq!(a.objects, b.objects);
    }
    assert_eq!(prepared.memory_bytes(), memory);
    assert_eq!(
        prepared.device().ledger().counts().allocations,
        allocations,
        "nothing was left for the frames"
    );
}

#[test]
fn a_bad_frame_is_refused_and_the_next_one_taken() {
    let mut pipeline = pipeline(2, options());
    let pixels = picture(0);
    let before = ids(&mut pipeline, &grey(0, &pixels));
    let good = grey(1, &pixels);
    for bad in [
        FrameView { width: 0, ..good },
        FrameView { height: 0, ..good },
        FrameView { width: 1 << 40, height: 1 << 40, ..good },
        FrameView { pixels: &pixels[1..], ..good },
        FrameView { pixel_format: PixelFormat::Rgb8, ..good },
    ] {
        let error = pipeline.process(&bad).unwrap_err();
        assert!(matches!(error, PipelineError::Frame(_)), "{error}");
        assert!(matches!(pipeline.prepare(&bad), Err(PipelineError::Frame(_))));
    }
    assert_eq!(ids(&mut pipeline, &good), before);
}

#[test]
fn odd_frames_are_processed() {
    let mut pipeline = pipeline(2, options());
    for (id, (width, height)) in [(1, 1), (1, 300), (300, 1), (9, 7)].into_iter().enumerate() {
        let pixels = vec![40; width * height];
        let frame = FrameView { width, height, pixels: &pixels[..], ..grey(id as u64, &pixels) };
        let packet = pipeline.process(&frame).unwrap();
        for object in &packet.objects {
            assert!(object.box_xyxy.iter().all(|v| v.is_finite()), "{width}x{height}: {object:?}");
        }
    }
}

#[test]
fn times_that_stand_still_jump_or_are_no_numbers_do_not_harm() {
    for matcher in [MatcherMode::Exact, MatcherMode::Host] {
        let mut pipeline = pipeline(1, PipelineOptions { matcher, ..options() });
        let pixels = picture(0);
        let times = [0.0, 0.0, -5.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3.0];
        for (id, timestamp_s) in times.into_iter().enumerate() {
            let packet = pipeline.process(&FrameView { timestamp_s, ..grey(id as u64, &pixels) }).unwrap();
            assert_eq!(packet.timestamp_s.to_bits(), timestamp_s.to_bits(), "never re-stamped");
            assert!(!packet.objects.is_empty());
            assert!(
                packet.objects.iter().all(|o| o.track_id > 0 && o.box_xyxy.iter().all(|v| v.is_finite()))
            );
        }
    }
}

#[test]
fn options_out_of_range_are_named() {
    let (detector, segmenter) = {
        let pipeline = pipeline(1, options());
        (pipeline.detector().clone(), pipeline.segmenter().clone())
    };
    let device = ultramotion_engine::Device::cpu(1);
    for (bad, named) in [
        (PipelineOptions { max_objects: 0, ..options() }, "max-objects"),
        (PipelineOptions { max_objects: 65, ..options() }, "max-objects"),
        (PipelineOptions { score_threshold: 7.0, ..options() }, "score-threshold"),
        (PipelineOptions { score_threshold: f32::NAN, ..options() }, "score-threshold"),
        (PipelineOptions { max_overlap_iou: -0.1, ..options() }, "max-overlap-iou"),
    ] {
        let error = Orchestrator::new(device.clone(), detector.clone(), segmenter.clone(), bad);
        let error = error.err().expect("an error").to_string();
        assert!(error.starts_with(named), "{error}");
    }
}
