//! Hugging Face's D-FINE (`DFineForObjectDetection`, the files of `ustc-community/dfine-*`) in official names.
//!
//! That implementation renames modules, and splits each attention's packed input projection into `q_proj`, `k_proj`
//! and `v_proj` (rows 0 to d, d to 2d, 2d to 3d of the packed matrix). Its names changed once: up to version 4
//! `encoder.encoder`, `out_proj`, `fc1`; from version 5 on, in memory, `encoder.aifi`, `o_proj`, `mlp.layers.0`. Both
//! are understood. It stores neither anchors nor (in its backbone) batch counters: a model computes the former from
//! its input size, and inference does not use the latter.
//!
//! A name that is not known stays as it is, and so is reported when the weights are compared with a model.

use std::collections::HashMap;

use super::weights::{WeightTensor, Weights};

/// Whether a file has this layout, told by its names.
pub(super) fn is_huggingface<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.starts_with("model.backbone.model."))
}

/// What a tensor is in the official layout.
#[derive(Debug, PartialEq, Eq)]
enum Official {
    /// The same tensor under another name.
    Renamed(String),
    /// The same tensor under two names: the official module tree holds it twice.
    Twice([String; 2]),
    /// Rows of a packed input projection: its name, and which third (0 query, 1 key, 2 value).
    Third(String, usize),
}

/// Renames and packs. Clones no data but that of packed projections.
pub(super) fn to_official(weights: &Weights) -> Weights {
    let mut official = Weights::new(weights.origin());
    let mut thirds: HashMap<String, [Option<(&str, &WeightTensor)>; 3]> = HashMap::new();
    let mut packed = Vec::new();
    for (name, tensor) in weights.iter() {
        match official_name(name) {
            Some(Official::Renamed(new)) => {
                official.insert(new, tensor.clone());
            }
            Some(Official::Twice(names)) => {
                for new in names {
                    official.insert(new, tensor.clone());
                }
            }
            Some(Official::Third(new, third)) => {
                let parts = thirds.entry(new.clone()).or_insert_with(|| {
                    packed.push(new);
                    [None; 3]
                });
                parts[third] = Some((name, tensor));
            }
            None => {
                official.insert(name, tensor.clone());
            }
        }
    }
    for name in packed {
        let parts = thirds[&name];
        let whole = match parts {
            [Some((_, q)), Some((_, k)), Some((_, v))] => WeightTensor::concatenated(&[q, k, v]),
            _ => None,
        };
        match whole {
            Some(tensor) => {
                official.insert(name, tensor);
            }
            // Left under their own names, so that a comparison with the model shows what is there and what is not.
            None => {
                for (part, tensor) in parts.into_iter().flatten() {
                    official.insert(part, tensor.clone());
                }
            }
        }
    }
    official
}

/// The official name of a Hugging Face tensor.
fn official_name(name: &str) -> Option<Official> {
    let parts: Vec<&str> = name.split('.').collect();
    let renamed =
        |prefix: &str, rest: &[&str]| Some(Official::Renamed(format!("{prefix}.{}", rest.join("."))));
    match &parts[..] {
        ["model", "backbone", "model", "embedder", rest @ ..] => renamed("backbone.stem", &backbone(rest)),
        ["model", "backbone", "model", "encoder", "stages", rest @ ..] => {
            renamed("backbone.stages", &backbone(rest))
        }
        ["model", side @ ("encoder_input_proj" | "decoder_input_proj"), level, part @ ("0" | "1"), leaf] => {
            let side = if *side == "encoder_input_proj" { "encoder" } else { "decoder" };
            let part = if *part == "0" { "conv" } else { "norm" };
            renamed(&format!("{side}.input_proj"), &[level, part, leaf])
        }
        ["model", "encoder", "encoder" | "aifi", level, "layers", layer, rest @ ..] => {
            transformer_layer(&format!("encoder.encoder.{level}.layers.{layer}"), rest, "norm2")
        }
        ["model", "encoder", blocks @ ("fpn_blocks" | "pan_blocks"), index, part, rest @ ..] => {
            // GELAN block: convolutions 2 and 3 each follow a CSP block in one sequence.
            let part = match *part {
                "conv1" => "cv1",
                "csp_rep1" => "cv2.0",
                "conv2" => "cv2.1",
                "csp_rep2" => "cv3.0",
                "conv3" => "cv3.1",
                "conv4" => "cv4",
                _ => return None,
            };
            renamed(&format!("encoder.{blocks}.{index}.{part}"), rest)
        }
        ["model", "encoder", "downsample_convs", index, conv @ ("conv1" | "conv2"), rest @ ..] => {
            let conv = if *conv == "conv1" { "cv1" } else { "cv2" };
            renamed(&format!("encoder.downsample_convs.{index}.0.{conv}"), rest)
        }
        ["model", "encoder", "lateral_convs", rest @ ..] => renamed("encoder.lateral_convs", rest),
        ["model", "decoder", "layers", layer, rest @ ..] => {
            transformer_layer(&format!("decoder.decoder.layers.{layer}"), rest, "norm3")
        }
        ["model", "decoder", "lqe_layers", rest @ ..] => renamed("decoder.decoder.lqe_layers", rest),
        // The heads are one set of tensors under two names, of which a file holds either.
        ["model", "decoder", "class_embed", rest @ ..] | ["class_embed", rest @ ..] => {
            renamed("decoder.dec_score_head", rest)
        }
        ["model", "decoder", "bbox_embed", rest @ ..] | ["bbox_embed", rest @ ..] => {
            renamed("decoder.dec_bbox_head", rest)
        }
        ["model", "decoder", constant @ ("up" | "reg_scale")] => {
            Some(Official::Twice([format!("decoder.{constant}"), format!("decoder.decoder.{constant}")]))
        }
        ["model", "decoder", head @ ("pre_bbox_head" | "query_pos_head"), rest @ ..]
        | ["model", head @ ("denoising_class_embed" | "enc_score_head" | "enc_bbox_head"), rest @ ..] => {
            renamed(&format!("decoder.{head}"), rest)
        }
        ["model", "enc_output", part @ ("0" | "1"), leaf] => {
            renamed("decoder.enc_output", &[if *part == "0" { "proj" } else { "norm" }, leaf])
        }
        ["model", "decoder", buffer @ ("anchors" | "valid_mask")]
        | ["model", buffer @ ("anchors" | "valid_mask")] => renamed("decoder", &[buffer]),
        _ => None,
    }
}

/// HGNetV2's convolution and norm by their official names.
fn backbone<'a>(parts: &[&'a str]) -> Vec<&'a str> {
    let rename = |part: &&'a str| match *part {
        "convolution" => "conv",
        "normalization" => "bn",
        part => part,
    };
    parts.iter().map(rename).collect()
}

/// A tensor of a transformer layer; `last_norm` is the official name of the norm after the feed-forward network.
fn transformer_layer(prefix: &str, parts: &[&str], last_norm: &str) -> Option<Official> {
    let renamed = |part: &str, leaf: &str| Some(Official::Renamed(format!("{prefix}.{part}.{leaf}")));
    match parts {
        ["self_attn", projection @ ("q_proj" | "k_proj" | "v_proj"), leaf] => {
            let third = match *projection {
                "q_proj" => 0,
                "k_proj" => 1,
                _ => 2,
            };
            Some(Official::Third(format!("{prefix}.self_attn.in_proj_{leaf}"), third))
        }
        ["self_attn", "out_proj" | "o_proj", leaf] => renamed("self_attn.out_proj", leaf),
        ["encoder_attn", rest @ ..] => renamed("cross_attn", &rest.join(".")),
        ["fc1", leaf] | ["mlp", "fc1", leaf] | ["mlp", "layers", "0", leaf] => renamed("linear1", leaf),
        ["fc2", leaf] | ["mlp", "fc2", leaf] | ["mlp", "layers", "1", leaf] => renamed("linear2", leaf),
        ["self_attn_layer_norm", leaf] => renamed("norm1", leaf),
        ["encoder_attn_layer_norm", leaf] => renamed("norm2", leaf),
        ["final_layer_norm", leaf] => renamed(last_norm, leaf),
        ["gateway", rest @ ..] => renamed("gateway", &rest.join(".")),
        _ => None,
    }
}
