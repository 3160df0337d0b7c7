//! The engine's kernels, a module for each source file, compiled to PTX.

use crate::cuda::launch::Module;

macro_rules! modules {
    ($($name:ident: $file:literal,)+) => {
        $(pub(super) static $name: Module =
            Module { name: $file, ptx: include_str!(concat!("../kernels/ptx/", $file, ".ptx")) };)+
    };
}

modules! {
    ELEMENTWISE: "elementwise",
    GATHER: "gather",
    ROWS: "rows",
    TOP_K: "top_k",
}
