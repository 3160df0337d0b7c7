//! No kernel allocates: counted, over a call of each on two threads.
#![allow(unsafe_code)]

use ultramotion_engine::cpu::kernels::*;
use ultramotion_engine::cpu::{Level, Pool};

mod counting_allocator;
use counting_allocator::allocations;

fn main() {
    let pool = Pool::new(2);
    for level in Level::available() {
        let c = 32;
        let map = Map::new(1, 24, 24);
        let double = Map::new(1, 48, 48);
        let rows = map.pixels();
        let x = vec![0.25f32; rows * 3 * c];
        let view = || View::new(&x, rows, c, c);
        let mut out = vec![0f32; double.pixels() * c];
        let weight = vec![0.125f32; c * c * 9];
        let bias = vec![0.5f32; c];
        let epilogue = || Epilogue::bias_act(&bias, Act::Silu);
        let linear_weight = PackedLinear::new(level, &weight[..c * c], c, c, epilogue()).expect("memory");
        let shape = ConvShape::square(3, 1, 1);
        let conv_weight = PackedConv::new(level, &weight, c, c, 1, shape, epilogue()).expect("memory");
        let depthwise_weight =
            PackedDepthwise::new(level, &weight[..c * 9], c, shape, epilogue()).expect("memory");
        let up_weight =
            PackedConvTranspose::new(level, &weight[..c * c * 4], c, c, epilogue()).expect("memory");
        let placement = ImagePlacement {
            size: [20, 24],
            corner: [0, 0],
            input: [24, 24],
            scale: [1.0; 3],
            shift: [0.0; 3],
        };
        let image_plan = ImagePlan::new(50, 60, 1, placement).expect("a plan");
        let frame = vec![7u8; 3000];
        let mut indices = vec![0u32; rows];
        let rows_wanted = vec![3; rows];
        let levels = [SampledLevel { h: 24, w: 24, points: 4 }];
        let attended = AttentionShape { batch: 1, heads: 2, lq: rows, lk: rows, d: 16, dv: 16, scale: 0.25 };

        let mut all = || {
            let mut to = |rows: usize, cols: usize| {
                let p = out.as_mut_ptr();
                assert!(rows * cols <= out.len());
                // SAFETY: one output at a time, inside the buffer.
                unsafe { ViewMut::from_raw(p, rows, cols, cols) }
            };
            linear(&pool, view(), &linear_weight, Some(view()), to(rows, c));
            conv2d(&pool, view(), map, &conv_weight, Some(view()), to(rows, c));
            depthwise(&pool, view(), map, &depthwise_weight, None, to(rows, c));
            conv_transpose2x2(&pool, view(), map, &up_weight, None, to(rows * 4, c));
            max_pool(level, &pool, view(), map, shape, f32::NEG_INFINITY, to(rows, c));
            upsample_nearest2(level, &pool, view(), map, to(rows * 4, c));
            transpose(level, &pool, view(), 1, to(c, rows));
            copy(level, &pool, view(), to(rows, c));
            unary(level, &pool, Unary::Exp, view(), to(rows, c));
            binary(
                level,
                &pool,
                Binary::Add,
                Broadcast::Full(view()),
                Broadcast::Row(&bias),
                Act::Relu,
                to(rows, c),
            );
            softmax(level, &pool, view(), to(rows, c));
            let norm = LayerNorm { gamma: &bias, beta: &bias, eps: 1e-5, act: Act::None };
            layer_norm(level, &pool, view(), Some(view()), norm, None, to(rows, c));
            reduce(level, &pool, Reduce::Mean, view(), to(rows, 1));
            let heads = Heads::adjacent(view(), 16);
            attention(level, &pool, attended, heads, heads, heads, None, to(rows, c));
            matmul(level, &pool, 1, view(), View::new(&x, c, c, c), true, to(rows, c));
            let [offsets, logits, boxes] = [16, 8, 4].map(|n| View::new(&x, 9, n, n));
            let points = SamplingPoints { offsets, logits, boxes };
            deformable(level, &pool, 1, 2, &levels, view(), points, to(9, c));
            image(level, &pool, &image_plan, &frame, to(rows, 3));
            top_k(&pool, View::new(&x, 1, 3000, 3000), 100, to(1, 100), &mut indices[..100]);
            gather(&pool, view(), &rows_wanted, to(rows, c));
        };
        // The first call lets the threads and the standard library set themselves up.
        all();
        let count = allocations(|| {
            for _ in 0..3 {
                all();
            }
        });
        assert_eq!(count, 0, "{} allocated", level.name());
    }
}
