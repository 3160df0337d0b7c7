//! Every op, written once, on every backend, against the float64 reference: random shapes, printed seed.
//!
//! `ULTRAMOTION_SEED=N` repeats a run; a failure prints the seed it had.

mod cases;
mod cuda;
mod device_input;
mod flaws;
mod graphs;
mod judge;
mod tuning;

use ultramotion_engine::{Device, Precision};

/// Instantiates every case for one backend.
macro_rules! backend_suite {
    ($backend:ident, $device:expr, [$($case:path => $name:ident),+ $(,)?]) => {
        mod $backend {
            $(#[test]
            fn $name() {
                if let Some(device) = $device {
                    crate::judge::check(stringify!($name), &device, $case);
                }
            })+
        }
    };
}

macro_rules! all_backends {
    ($cases:tt) => {
        backend_suite!(cpu_one_thread, Some(super::Device::cpu(1)), $cases);
        backend_suite!(cpu_three_threads, Some(super::Device::cpu(3)), $cases);
        backend_suite!(reference_program, Some(super::Device::reference()), $cases);
        backend_suite!(cuda_f32, crate::cuda::device(super::Precision::F32), $cases);
        backend_suite!(cuda_f16, crate::cuda::device(super::Precision::F16), $cases);
    };
}

all_backends!([
    crate::cases::conv2d => conv2d,
    crate::cases::conv2d_depthwise => conv2d_depthwise,
    crate::cases::conv2d_grouped => conv2d_grouped,
    crate::cases::conv_transpose2d => conv_transpose2d,
    crate::cases::batch_norm => batch_norm,
    crate::cases::linear => linear,
    crate::cases::matmul => matmul,
    crate::cases::unary => unary,
    crate::cases::binary => binary,
    crate::cases::reduce => reduce,
    crate::cases::slice_and_concat => slice_and_concat,
    crate::cases::pad => pad,
    crate::cases::max_pool2d => max_pool2d,
    crate::cases::upsample_nearest_2x => upsample_nearest_2x,
    crate::cases::softmax => softmax,
    crate::cases::layer_norm => layer_norm,
    crate::cases::top_k => top_k,
    crate::cases::gather => gather,
    crate::cases::attention => attention,
    crate::cases::attention_of_many_batches => attention_of_many_batches,
    crate::cases::attention_of_many_keys => attention_of_many_keys,
    crate::cases::window_attention => window_attention,
    crate::cases::deformable_attention => deformable_attention,
    crate::cases::image_to_tensor => image_to_tensor,
    crate::cases::custom_op_with_state => custom_op_with_state,
    crate::graphs::row_counted_chain => row_counted_chain,
    crate::graphs::reparameterised_pair => reparameterised_pair,
    crate::graphs::perceptron => perceptron,
    crate::graphs::normed_rows => normed_rows,
    crate::graphs::inverted_bottleneck => inverted_bottleneck,
    crate::graphs::elementwise_expression => elementwise_expression,
    crate::graphs::random_network => random_network,
]);
