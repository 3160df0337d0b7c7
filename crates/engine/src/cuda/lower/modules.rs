//! The engine's kernels: a module for each source file.

use crate::launch::Module;

/// The module of the kernels in `kernels/NAME.cu`, whose PTX lies in `kernels/ptx/NAME.ptx`.
macro_rules! module {
    ($name:literal) => {
        Module {
            name: $name,
            ptx: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/kernels/ptx/", $name, ".ptx")),
        }
    };
}

pub(super) static ATTENTION: Module = module!("attention");
pub(super) static ATTENTION_F16: Module = module!("attention_f16");
pub(super) static CONV_F16: Module = module!("conv_f16");
pub(super) static CONV_F32: Module = module!("conv_f32");
pub(super) static DEFORMABLE: Module = module!("deformable");
pub(super) static DEPTHWISE: Module = module!("depthwise");
pub(super) static ELEMENTWISE: Module = module!("elementwise");
pub(super) static EXPRESSION: Module = module!("expression");
pub(super) static GATHER: Module = module!("gather");
pub(super) static GEMM_F16: Module = module!("gemm_f16");
pub(super) static GEMM_F32: Module = module!("gemm_f32");
pub(super) static IMAGE: Module = module!("image");
pub(super) static MAPS: Module = module!("maps");
pub(super) static PERCEPTRON: Module = module!("perceptron");
pub(super) static ROWS: Module = module!("rows");
pub(super) static TOP_K: Module = module!("top_k");
