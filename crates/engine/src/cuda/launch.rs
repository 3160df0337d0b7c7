//! One kernel with its arguments.

use bytemuck::NoUninit;

use super::abi;
use crate::graph::TensorType;

/// Compiled kernels that are loaded together.
#[derive(Debug)]
pub struct Module {
    /// Name of the source file, without its suffix.
    pub name: &'static str,
    /// The file compiled to PTX for compute capability 8.0; the driver compiles it for the GPU at hand.
    pub ptx: &'static str,
}

/// What a kernel begins with in PTX.
const ENTRY: &str = "\n.visible .entry ";

/// What `wait_for_previous` of `kernels/abi.cuh` leaves in PTX, and what it stands for where kernels overlap: the oldest PTX and
/// compute capability that have these instructions. `cuda/compile.py` assembles the same.
const OVERLAP: [(&str, &str); 4] = [
    (".version 7.0", ".version 7.8"),
    (".target sm_80", ".target sm_90"),
    ("// overlap: wait", "griddepcontrol.wait;"),
    ("// overlap: next", "griddepcontrol.launch_dependents;"),
];

impl Module {
    /// The PTX of one kernel alone: what the module declares, and the kernel's body. With `overlap` it is for compute
    /// capability 9.0, and the kernel may be started before the one before it is done.
    pub(crate) fn kernel_ptx(&self, kernel: &str, overlap: bool) -> Option<String> {
        let (declared, bodies) = self.ptx.split_once(ENTRY)?;
        let body = bodies.split(ENTRY).find(|body| body.split('(').next() == Some(kernel))?;
        let ptx = [declared, ENTRY, body].concat();
        if !overlap {
            return Some(ptx);
        }
        OVERLAP.iter().try_fold(ptx, |ptx, (from, to)| ptx.contains(from).then(|| ptx.replace(from, to)))
    }
}

/// The module of the kernels in `kernels/NAME.cu`, whose PTX lies in `kernels/ptx/NAME.ptx`.
macro_rules! module {
    ($name:literal) => {
        $crate::cuda::Module {
            name: $name,
            ptx: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/kernels/ptx/", $name, ".ptx")),
        }
    };
}
pub(crate) use module;

/// A kernel, the threads that run it, and its arguments: one structure passed by value.
#[derive(Debug, Clone)]
pub struct Launch {
    pub(crate) module: &'static Module,
    pub(crate) kernel: &'static str,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) params: Vec<u8>,
}

impl Launch {
    /// `kernel` of `module` with one block of one warp.
    pub fn new(module: &'static Module, kernel: &'static str, params: &impl NoUninit) -> Self {
        Launch {
            module,
            kernel,
            grid: [1; 3],
            block: [32, 1, 1],
            shared_bytes: 0,
            params: bytemuck::bytes_of(params).to_vec(),
        }
    }
    /// Blocks in x, y and z. Nothing to compute may give a zero: then nothing is launched.
    pub fn grid(mut self, blocks: [u32; 3]) -> Self {
        self.grid = blocks;
        self
    }
    /// Threads of a block in x, y and z.
    pub fn block(mut self, threads: [u32; 3]) -> Self {
        self.block = threads;
        self
    }
    /// Dynamic shared memory of a block.
    pub fn shared(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self
    }
}

/// What the CUDA form of a custom op is bound to. All operands are contiguous.
#[derive(Debug)]
pub struct CudaCall<'a> {
    /// Types of the arguments.
    pub input_types: &'a [TensorType],
    /// Arguments, in order.
    pub inputs: &'a [abi::Operand],
    /// Results, in order. Their content is undefined before the op runs.
    pub outputs: &'a [abi::Operand],
    /// Buffers asked for by [`CustomOp::cuda_scratch`](crate::graph::CustomOp::cuda_scratch).
    pub scratch: &'a [abi::Operand],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_ptx_is_what_its_module_declares_and_its_own_body() {
        let ptx = ".version 7.0\n.global .u8 x;\n.visible .entry a(\n.param p\n) { 1 }\n\n.visible .entry ab()\n{ 2 }\n";
        let module = Module { name: "m", ptx };
        let declared = ".version 7.0\n.global .u8 x;";
        assert_eq!(
            module.kernel_ptx("a", false).unwrap(),
            format!("{declared}\n.visible .entry a(\n.param p\n) {{ 1 }}\n")
        );
        assert_eq!(
            module.kernel_ptx("ab", false).unwrap(),
            format!("{declared}\n.visible .entry ab()\n{{ 2 }}\n")
        );
        assert_eq!(module.kernel_ptx("b", false), None);
    }

    #[test]
    fn where_kernels_overlap_each_waits_for_the_one_before() {
        let ptx = ".version 7.0\n.target sm_80\n.visible .entry a()\n{\n// overlap: wait\n// overlap: next\nret;\n}\n";
        let module = Module { name: "m", ptx };
        let overlapping = ".version 7.8\n.target sm_90\n.visible .entry a()\n{\ngriddepcontrol.wait;\n\
                           griddepcontrol.launch_dependents;\nret;\n}\n";
        assert_eq!(module.kernel_ptx("a", true).unwrap(), overlapping);
        // One that did not wait would read what is not there yet.
        let module =
            Module { name: "m", ptx: ".version 7.0\n.target sm_80\n.visible .entry a()\n{\nret;\n}\n" };
        assert_eq!(module.kernel_ptx("a", true), None);
    }
}
