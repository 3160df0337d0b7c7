//! The PTX of a kernel as the driver gets it.

use crate::launch::Module;

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

/// The PTX of one kernel alone: what the module declares, and the kernel's body. With `overlap` it is for compute
/// capability 9.0, and the kernel may be started before the one before it is done.
pub(super) fn kernel_ptx(module: &Module, kernel: &str, overlap: bool) -> Option<String> {
    let (declared, bodies) = module.ptx.split_once(ENTRY)?;
    let body = bodies.split(ENTRY).find(|body| body.split('(').next() == Some(kernel))?;
    let ptx = [declared, ENTRY, body].concat();
    if !overlap {
        return Some(ptx);
    }
    OVERLAP.iter().try_fold(ptx, |ptx, (from, to)| ptx.contains(from).then(|| ptx.replace(from, to)))
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
            kernel_ptx(&module, "a", false).unwrap(),
            format!("{declared}\n.visible .entry a(\n.param p\n) {{ 1 }}\n")
        );
        assert_eq!(
            kernel_ptx(&module, "ab", false).unwrap(),
            format!("{declared}\n.visible .entry ab()\n{{ 2 }}\n")
        );
        assert_eq!(kernel_ptx(&module, "b", false), None);
    }

    #[test]
    fn where_kernels_overlap_each_waits_for_the_one_before() {
        let ptx = ".version 7.0\n.target sm_80\n.visible .entry a()\n{\n// overlap: wait\n// overlap: next\nret;\n}\n";
        let module = Module { name: "m", ptx };
        let overlapping = ".version 7.8\n.target sm_90\n.visible .entry a()\n{\ngriddepcontrol.wait;\n\
                           griddepcontrol.launch_dependents;\nret;\n}\n";
        assert_eq!(kernel_ptx(&module, "a", true).unwrap(), overlapping);
        // One that did not wait would read what is not there yet.
        let module =
            Module { name: "m", ptx: ".version 7.0\n.target sm_80\n.visible .entry a()\n{\nret;\n}\n" };
        assert_eq!(kernel_ptx(&module, "a", true), None);
    }
}
