//! A compiled program allocates nothing when it runs: counted over all threads.

mod counting_allocator;

use counting_allocator::allocations;
use ultramotion_engine::graph::{Graph, GraphError, InputPort, OutputPort, Padding, UnaryOp};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::tensor::HostTensor;
use ultramotion_engine::{CompileOptions, Device, Program};

fn weights(shape: &[usize]) -> HostTensor {
    let value = |i: usize| ((i * 37 % 101) as f32 / 101.0 - 0.5) / 8.0;
    HostTensor::f32(shape, (0..shape.iter().product()).map(value).collect::<Vec<f32>>())
}

struct Ports {
    image: InputPort<f32>,
    count: InputPort<i32>,
    remembered: OutputPort<f32>,
}

/// Convolutions that share buffers, tokens with attention, the best of them by a device-resident count, and a state
/// that each run reads and writes.
fn network() -> Result<(Graph, Ports), GraphError> {
    let mut g = Graph::new("network");
    let (image, image_port) = g.input_port("image", [1, 24, 24, 3])?;
    let (count, count_port) = g.input_port("count", [1])?;
    g.set_stage("maps");
    let stem = g.constant(weights(&[16, 3, 3, 3]));
    let x = g.conv2d(image, stem, None, 2, Padding::same(1), 1)?;
    let x = g.unary(UnaryOp::Silu, x)?;
    let depthwise = g.constant(weights(&[16, 1, 3, 3]));
    let y = g.conv2d(x, depthwise, None, 1, Padding::same(1), 16)?;
    let joined = g.concat(&[x, y], 3)?;
    let pointwise = g.constant(weights(&[16, 32, 1, 1]));
    let z = g.conv2d(joined, pointwise, None, 1, Padding::same(0), 1)?;
    let z = g.add(z, x)?;
    g.set_stage("tokens");
    let tokens = g.reshape(z, [1, 144, 16])?;
    let (gamma, beta) = (g.constant(weights(&[16])), g.constant(weights(&[16])));
    let tokens = g.layer_norm(tokens, gamma, beta, 1e-5)?;
    let attended = g.attention([tokens, tokens, tokens], None, 2, 0.3)?;
    let tokens = g.add(attended, tokens)?;
    let column = g.slice(tokens, 2, 0, 1)?;
    let scores = g.reshape(column, [1, 144])?;
    let (_, best) = g.top_k(scores, 8)?;
    let best = g.reshape(best, [8])?;
    let table = g.reshape(tokens, [144, 16])?;
    let chosen = g.gather(table, best)?;
    let chosen = g.limit_rows(chosen, count)?;
    let head = g.constant(weights(&[4, 16]));
    let out = g.linear(chosen, head, None)?;
    let memory = g.state("memory", HostTensor::f32([1, 144], vec![0.0; 144]))?;
    let next = g.add(memory, scores)?;
    g.set_state(memory, next)?;
    let remembered = g.output_port("remembered", next)?;
    g.output("out", out)?;
    Ok((g, Ports { image: image_port, count: count_port, remembered }))
}

fn main() {
    for (threads, profile) in [(1, false), (2, false), (2, true)] {
        let device = Device::cpu(threads);
        let options = CompileOptions { profile, ..CompileOptions::default() };
        let (graph, ports) = network().expect("a graph");
        let mut program = Program::compile(graph, &device, &options).expect("a program");
        let (mut input, mut output) =
            (program.input_block().expect("memory"), program.output_block().expect("memory"));
        ports.image.write(&mut input, weights(&[1, 24, 24, 3]).as_f32().expect("floats"));
        // The ledger makes an entry for each caller when it first meets him.
        program.run_frame(&input, &mut output, Budget::RESIDENT_FRAME).expect("a run");
        let first = ports.remembered.read(&output)[0];
        let count_of_allocations = allocations(|| {
            // Any number of valid rows, none and all among them.
            for rows in [0, 1, 5, 8, 3, 8] {
                ports.count.write(&mut input, &[rows]);
                program.upload(&input).expect("a copy");
                let event = program.launch().expect("a launch");
                program.wait(event).expect("its end");
                program.download(&mut output).expect("a copy");
            }
        });
        assert_eq!(count_of_allocations, 0, "{threads} threads, profile {profile}");
        let last = ports.remembered.read(&output)[0];
        assert!(
            (last - 7.0 * first).abs() < 1e-3 * last.abs(),
            "each of seven runs adds to the state: {first}, {last}"
        );
    }
}
