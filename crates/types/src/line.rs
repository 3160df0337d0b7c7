//! A result packet as a line of `results.jsonl`.

use serde::{Serialize, Serializer};

use crate::frame::TimeSource;
use crate::mask::CocoRle;
use crate::modes::Modes;
use crate::packet::{Fault, LatencyMs, Quality, ResultPacket, Transfers};

/// One line: what a frame gave. A packet serialises as its line; this type is for lines under another name.
#[derive(Debug, Serialize)]
pub struct ResultLine<'a> {
    frame_id: u64,
    timestamp: f64,
    /// `arrival` where the source gives no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_source: Option<&'static str>,
    source: &'a str,
    width: usize,
    height: usize,
    state: &'static str,
    objects: Vec<ObjectRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    latency_ms: LatencyMs,
    transfers: Transfers,
    device: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a str>,
    modes: Modes,
}

#[derive(Debug, Serialize)]
struct ObjectRecord<'a> {
    track_id: i32,
    confirmed: bool,
    label: &'a str,
    score: f32,
    box_xyxy: [f32; 4],
    mask: CocoRle,
    mask_score: f32,
    /// Only where somebody pointed at the object.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prompt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
}

impl<'a> ResultLine<'a> {
    /// The line of a packet.
    pub fn new(packet: &'a ResultPacket) -> Self {
        let objects = packet.objects_with_masks().map(|(object, mask)| ObjectRecord {
            track_id: object.track_id,
            confirmed: object.confirmed,
            label: packet.label(object.class),
            score: object.score,
            box_xyxy: object.box_xyxy,
            mask: CocoRle::encode(mask),
            mask_score: object.mask_score,
            prompt: object.prompted,
            quality: object.quality,
        });
        ResultLine {
            frame_id: packet.frame_id,
            timestamp: packet.timestamp_s,
            time_source: (packet.time_source == TimeSource::Arrival).then_some("arrival"),
            source: &packet.source,
            width: packet.width,
            height: packet.height,
            state: packet.state.as_str(),
            objects: objects.collect(),
            fault: packet.fault,
            latency_ms: packet.latency_ms,
            transfers: packet.transfers,
            device: packet.device,
            fallback: packet.fallback.as_deref(),
            modes: packet.modes,
        }
    }

    /// The same line with another frame number, and another name of the source.
    pub fn renamed(self, frame_id: u64, source: &'a str) -> Self {
        ResultLine { frame_id, source, ..self }
    }
}

impl Serialize for ResultPacket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ResultLine::new(self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::DetectedObject;

    #[test]
    fn a_time_that_is_not_the_sources_is_marked() {
        let line = |time_source| {
            let mut packet = ResultPacket::default();
            packet.time_source = time_source;
            serde_json::to_value(&packet).unwrap()
        };
        assert_eq!(line(TimeSource::Arrival)["time_source"], "arrival");
        assert!(line(TimeSource::Source).get("time_source").is_none());
    }

    #[test]
    fn what_an_object_may_have_is_named_only_where_it_has_it() {
        let line = |object: DetectedObject| {
            let mut packet = ResultPacket::default();
            packet.push(object, &[]);
            serde_json::to_value(&packet).unwrap()["objects"][0].clone()
        };
        let plain = line(DetectedObject::default());
        assert!(plain.get("prompt").is_none() && plain.get("quality").is_none());
        let quality = Some(Quality { edge: 0.5, ..Quality::default() });
        let rich = line(DetectedObject { prompted: true, quality, ..DetectedObject::default() });
        assert_eq!((&rich["prompt"], &rich["quality"]["edge"]), (&true.into(), &0.5.into()));
    }
}
