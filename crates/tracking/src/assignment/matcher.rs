//! [`HungarianMatcher`]: which query of a detector answers for which target.
//!
//! cost = `class` · class cost + `bbox` · L1 on (cx, cy, w, h) − `giou` · GIoU, solved per batch item. In: logits,
//! boxes and targets of a batch, each item with its own number of targets. Out: pairs of (query, target).

use super::cost::{ClassCost, CostWeights, QueriesAndTargets, TAKEN_COST, fill_costs};
use ultramotion_types::MatcherMode;

use super::{CostMatrix, Solver, UNMATCHED, Workspace};
use crate::error::TrackingError;

/// One image of a batch. Boxes are (cx, cy, w, h), normally as fractions of the image.
#[derive(Clone, Copy, Debug)]
pub struct BatchItem<'a> {
    /// `[Q, C]`: class logits of the queries.
    pub logits: &'a [f32],
    /// `[Q, 4]`: boxes of the queries.
    pub boxes_cxcywh: &'a [f32],
    /// `[T]`: class of each target, 0 to C − 1.
    pub target_labels: &'a [i32],
    /// `[T, 4]`: box of each target.
    pub target_boxes_cxcywh: &'a [f32],
}

/// Assigns queries to targets at the least total cost.
///
/// ```
/// use ultramotion_tracking::assignment::{BatchItem, ClassCost, HungarianMatcher};
///
/// let matcher = HungarianMatcher::builder().class_cost(ClassCost::FOCAL).build()?;
/// let pairs = matcher.assign(&[BatchItem {
///     logits: &[-2.0, 3.0, /**/ 2.0, -1.0],
///     boxes_cxcywh: &[0.2, 0.2, 0.1, 0.1, /**/ 0.7, 0.6, 0.2, 0.2],
///     target_labels: &[0],
///     target_boxes_cxcywh: &[0.7, 0.6, 0.2, 0.3],
/// }])?;
/// assert_eq!(pairs, [vec![(1, 0)]]);
/// # Ok::<(), ultramotion_tracking::TrackingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HungarianMatcher {
    settings: HungarianMatcherBuilder,
}

/// Settings of a [`HungarianMatcher`]: softmax class cost, weights 1, 5 and 2, exact, one round, unless changed.
#[derive(Clone, Copy, Debug)]
pub struct HungarianMatcherBuilder {
    class_cost: ClassCost,
    weights: CostWeights,
    mode: MatcherMode,
    rounds: usize,
}

impl HungarianMatcherBuilder {
    /// Softmax probability or focal.
    pub fn class_cost(mut self, class_cost: ClassCost) -> Self {
        self.class_cost = class_cost;
        self
    }

    /// How much each term counts: finite, not all 0.
    pub fn weights(mut self, weights: CostWeights) -> Self {
        self.weights = weights;
        self
    }

    /// The solver. Everything here runs on the host, so `Exact` and `Host` are the same.
    pub fn mode(mut self, mode: MatcherMode) -> Self {
        self.mode = mode;
        self
    }

    /// One-to-many: match `k` times (at least 1), and return the pairs of all rounds in turn. After each round all
    /// pairs of the queries just matched cost at least [`TAKEN_COST`], so the next round finds the next best ones.
    ///
    /// The price is high, not infinite, so every round yields min(Q, T) pairs: once k · T exceeds Q, queries come
    /// again. (The matcher in D-FINE's training code also raises the rows whose number equals a matched *target's*
    /// index, and those of every other image in the batch; that is not repeated here.)
    pub fn return_topk(mut self, k: usize) -> Self {
        self.rounds = k;
        self
    }

    /// Checks the settings.
    pub fn build(self) -> Result<HungarianMatcher, TrackingError> {
        let CostWeights { class, bbox, giou } = self.weights;
        for (field, value) in [("weights.class", class), ("weights.bbox", bbox), ("weights.giou", giou)] {
            if !value.is_finite() {
                let (value, rule) = (f64::from(value), "it must be a finite number");
                return Err(TrackingError::Config { field, value, rule });
            }
        }
        if class == 0.0 && bbox == 0.0 && giou == 0.0 {
            let rule = "the three weights must not all be 0";
            return Err(TrackingError::Config { field: "weights", value: 0.0, rule });
        }
        if let ClassCost::Focal { alpha, gamma } = self.class_cost {
            if !(0.0..=1.0).contains(&alpha) {
                let (value, rule) = (f64::from(alpha), "it must lie between 0 and 1");
                return Err(TrackingError::Config { field: "alpha", value, rule });
            }
            if !(gamma.is_finite() && gamma >= 0.0) {
                let (value, rule) = (f64::from(gamma), "it must be 0 or more");
                return Err(TrackingError::Config { field: "gamma", value, rule });
            }
        }
        if self.rounds == 0 {
            let rule = "at least one round is needed";
            return Err(TrackingError::Config { field: "return_topk", value: 0.0, rule });
        }
        Ok(HungarianMatcher { settings: self })
    }
}

impl HungarianMatcher {
    /// Starts from the defaults.
    pub fn builder() -> HungarianMatcherBuilder {
        HungarianMatcherBuilder {
            class_cost: ClassCost::Softmax,
            weights: CostWeights::default(),
            mode: MatcherMode::Exact,
            rounds: 1,
        }
    }

    /// For each image its pairs (query, target): min(Q, T) a round, ascending by query within a round. No queries
    /// or no targets give no pairs.
    pub fn assign(&self, batch: &[BatchItem<'_>]) -> Result<Vec<Vec<(usize, usize)>>, TrackingError> {
        let mut shapes = Vec::with_capacity(batch.len());
        for (index, item) in batch.iter().enumerate() {
            shapes.push(Shape::of(item, index)?);
        }
        batch.iter().zip(shapes).map(|(item, shape)| self.assign_item(item, shape)).collect()
    }

    /// The cost matrix `[Q, T]` of one image, as `assign` solves it: see [`fill_costs`].
    pub fn cost_matrix(&self, item: &BatchItem<'_>) -> Result<Vec<f32>, TrackingError> {
        Ok(self.costs(item, Shape::of(item, 0)?))
    }

    /// How the class term is computed.
    pub fn class_cost(&self) -> ClassCost {
        self.settings.class_cost
    }

    /// How much each term counts.
    pub fn weights(&self) -> CostWeights {
        self.settings.weights
    }

    /// The solver.
    pub fn mode(&self) -> MatcherMode {
        self.settings.mode
    }

    /// How often each target is matched.
    pub fn rounds(&self) -> usize {
        self.settings.rounds
    }

    fn costs(&self, item: &BatchItem<'_>, shape: Shape) -> Vec<f32> {
        let mut costs = vec![0.0; shape.queries * shape.targets];
        let of = QueriesAndTargets {
            logits: item.logits,
            num_classes: shape.classes,
            boxes_cxcywh: item.boxes_cxcywh,
            target_labels: item.target_labels,
            target_boxes_cxcywh: item.target_boxes_cxcywh,
        };
        fill_costs(&of, self.settings.class_cost, self.settings.weights, &mut costs);
        costs
    }

    fn assign_item(&self, item: &BatchItem<'_>, shape: Shape) -> Result<Vec<(usize, usize)>, TrackingError> {
        let Shape { queries, targets, .. } = shape;
        let mut costs = self.costs(item, shape);
        let mut workspace = Workspace::new(queries, targets);
        let mut col_of_row = vec![UNMATCHED; queries];
        let mut pairs = Vec::new();
        for round in 0..self.settings.rounds {
            if queries == 0 || targets == 0 {
                break;
            }
            Solver::from(self.settings.mode).solve(
                CostMatrix::new(&costs, queries, targets)?,
                f64::INFINITY,
                &mut workspace.scratch(),
                &mut col_of_row,
            )?;
            let last = round + 1 == self.settings.rounds;
            for (query, &target) in col_of_row.iter().enumerate() {
                if target != UNMATCHED {
                    pairs.push((query, target as usize));
                    if !last {
                        let row = &mut costs[query * targets..][..targets];
                        row.iter_mut().for_each(|cost| *cost = cost.max(TAKEN_COST));
                    }
                }
            }
        }
        Ok(pairs)
    }
}

/// The sizes of one batch item.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub(crate) queries: usize,
    pub(crate) targets: usize,
    pub(crate) classes: usize,
}

impl Shape {
    /// An error if the item's slices do not fit each other. `index` is its place in the batch.
    pub(crate) fn of(item: &BatchItem<'_>, index: usize) -> Result<Self, TrackingError> {
        let wrong = |name, got, expected| TrackingError::Shape { item: index, name, got, expected };
        if !item.boxes_cxcywh.len().is_multiple_of(4) {
            let expected = "[Q, 4], four values a box".to_owned();
            return Err(wrong("boxes_cxcywh", item.boxes_cxcywh.len(), expected));
        }
        let queries = item.boxes_cxcywh.len() / 4;
        let targets = item.target_labels.len();
        let classes = item.logits.len().checked_div(queries).unwrap_or(0);
        if item.logits.len() != queries * classes || (queries > 0 && classes == 0) {
            let expected = format!("[Q, C] with Q = {queries} queries and at least one class");
            return Err(wrong("logits", item.logits.len(), expected));
        }
        if item.target_boxes_cxcywh.len() != 4 * targets {
            let expected = format!("[T, 4] with T = {targets} target labels");
            return Err(wrong("target_boxes_cxcywh", item.target_boxes_cxcywh.len(), expected));
        }
        for (target, &label) in item.target_labels.iter().enumerate() {
            if queries > 0 && !usize::try_from(label).is_ok_and(|label| label < classes) {
                return Err(TrackingError::Label { item: index, target, label, num_classes: classes });
            }
        }
        Ok(Self { queries, targets, classes })
    }
}
