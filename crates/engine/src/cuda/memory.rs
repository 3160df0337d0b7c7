//! Device memory of a program: one arena, two blocks, its weights; the addresses that kernels are bound to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::driver::{Allocation, Driver};
use super::plan::Plan;
use crate::compile::{Home, Site, Storage};
use crate::error::CudaError;
use crate::graph::{Op, Tensor};
use crate::launch::abi::{Operand, Rows, element};

/// Weights are allocated in pieces of this size, or of their own if larger.
const PIECE_BYTES: usize = 8 << 20;
/// Alignment of each weight: that of the widest access and of a memory sector.
const WEIGHT_ALIGNMENT: usize = 256;

/// The buffers of one program.
pub(super) struct Memory {
    driver: Arc<dyn Driver>,
    arena: Allocation,
    pub(super) input: Allocation,
    pub(super) output: Allocation,
    states: Vec<u64>,
    weights: RefCell<Weights>,
    counters: RefCell<Vec<Allocation>>,
}

#[derive(Default)]
struct Weights {
    pieces: Vec<Allocation>,
    /// Bytes of the last piece that are taken.
    used: usize,
    /// Constants that kernels read as they are, by node.
    constants: HashMap<usize, u64>,
}

impl Memory {
    /// Allocates what a plan needs apart from weights. `states` are the addresses of its states.
    pub(super) fn new(driver: &Arc<dyn Driver>, plan: &Plan, states: Vec<u64>) -> Result<Self, CudaError> {
        Ok(Memory {
            driver: driver.clone(),
            arena: Allocation::new(driver, plan.arena_bytes)?,
            input: Allocation::new(driver, plan.input_bytes)?,
            output: Allocation::new(driver, plan.output_bytes)?,
            states,
            weights: RefCell::default(),
            counters: RefCell::default(),
        })
    }

    /// Bytes of arena, blocks, weights and counters.
    pub(super) fn bytes(&self) -> usize {
        let sum = |pieces: &[Allocation]| pieces.iter().map(|p| p.bytes).sum::<usize>();
        let kept = sum(&self.weights.borrow().pieces) + sum(&self.counters.borrow());
        self.arena.bytes + self.input.bytes + self.output.bytes + kept
    }

    /// Puts `count` zeros of u32 on the device, for as long as the program lives.
    pub(super) fn counters(&self, count: usize) -> Result<u64, CudaError> {
        let zeros = vec![0u8; 4 * count];
        let memory = Allocation::new(&self.driver, zeros.len())?;
        memory.write(&zeros)?;
        let address = memory.address;
        self.counters.borrow_mut().push(memory);
        Ok(address)
    }

    /// Puts packed weights on the device, for as long as the program lives.
    pub(super) fn keep(&self, bytes: &[u8]) -> Result<u64, CudaError> {
        let mut weights = self.weights.borrow_mut();
        let start = weights.used.next_multiple_of(WEIGHT_ALIGNMENT);
        let fits = weights.pieces.last().is_some_and(|p| start + bytes.len() <= p.bytes);
        let start = if fits {
            start
        } else {
            weights.pieces.push(Allocation::constants(&self.driver, bytes.len().max(PIECE_BYTES))?);
            0
        };
        weights.used = start + bytes.len();
        let address = weights.pieces.last().map_or(0, |p| p.address) + start as u64;
        self.driver.write(address, bytes)?;
        Ok(address)
    }

    fn address(&self, plan: &Plan, home: Home) -> Result<u64, CudaError> {
        Ok(match home {
            Home::Arena(offset) => self.arena.address + offset as u64,
            Home::Input(offset) => self.input.address + offset as u64,
            Home::Output(offset) => self.output.address + offset as u64,
            Home::State(index) => self.states[index],
            Home::Constant(node) => {
                if let Some(&address) = self.weights.borrow().constants.get(&node) {
                    return Ok(address);
                }
                let Op::Constant(value) = &plan.graph.nodes()[node].op else {
                    unreachable!("constants are at home with constants")
                };
                let address = self.keep(value.bytes())?;
                self.weights.borrow_mut().constants.insert(node, address);
                address
            }
        })
    }

    /// An operand for a tensor of a plan.
    pub(super) fn operand(&self, plan: &Plan, tensor: Tensor) -> Result<Operand, CudaError> {
        let shape = plan.graph.shape(tensor);
        self.operand_at(plan, plan.site(tensor), plan.storage(tensor), shape.rows(), shape.cols())
    }

    /// An operand of a given size at a site.
    pub(super) fn operand_at(
        &self,
        plan: &Plan,
        site: Site,
        storage: Storage,
        rows: usize,
        cols: usize,
    ) -> Result<Operand, CudaError> {
        let data = self.address(plan, site.home)? + (site.offset * storage.size()) as u64;
        let element = match storage {
            Storage::F32 => element::F32,
            Storage::F16 => element::F16,
            Storage::I32 => element::I32,
            Storage::U8 => element::U8,
        };
        let small = |n: usize| u32::try_from(n).expect("graph shapes are far below 2^32");
        Ok(Operand { data, rows: small(rows), cols: small(cols), pitch: small(site.pitch), element })
    }

    /// The rows of a tensor that are to be computed.
    pub(super) fn rows(&self, plan: &Plan, tensor: Tensor) -> Result<Rows, CudaError> {
        let ty = plan.graph.ty(tensor);
        let bound = ty.shape.rows() as u32;
        let Some(count) = ty.rows else { return Ok(Rows { entries: 0, rows_per_entry: 1, bound }) };
        let entries = self.operand(plan, count.count)?.data;
        let leading = ty.shape.dims().first().copied().unwrap_or(1).max(1);
        let rows_per_entry = (ty.shape.rows() / leading * count.rows_per_item) as u32;
        Ok(Rows { entries, rows_per_entry, bound })
    }
}
