//! The ops' kernels, and where their working memory is: in the shared memory of the one block that runs, as far as it fits.

use ultramotion_engine::launch::Module;
use ultramotion_engine::ptx;

pub(super) static ASSIGN: Module = Module { name: "assign", ptx: ptx!("kernels/ptx/assign.ptx") };
pub(super) static FOLLOW: Module = Module { name: "follow", ptx: ptx!("kernels/ptx/follow.ptx") };
pub(super) static MATCH_COST: Module = Module { name: "match_cost", ptx: ptx!("kernels/ptx/match_cost.ptx") };
pub(super) static QUALITY: Module = Module { name: "quality", ptx: ptx!("kernels/ptx/quality.ptx") };
pub(super) static TRACK_UPDATE: Module =
    Module { name: "track_update", ptx: ptx!("kernels/ptx/track_update.ptx") };

/// Dynamic shared memory that a block can have on every GPU from compute capability 8.0 on, beside what the kernels declare.
pub(super) const SHARED_BYTES: usize = 96 * 1024;
/// Working memory of the exact solver for each entry of the longer side, costs aside: `EXACT_BYTES_PER_COLUMN`.
pub(super) const EXACT_BYTES_PER_COLUMN: usize = 3 * 8 + 5 * 4;

/// Threads of a block that share `n` things: whole warps.
pub(super) fn threads_for(n: usize) -> u32 {
    n.next_multiple_of(32).clamp(32, 512) as u32
}
