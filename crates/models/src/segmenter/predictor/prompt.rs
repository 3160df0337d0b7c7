//! What is known of an object.

/// A point and what it says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledPoint {
    /// Pixels from the left.
    pub x: f32,
    /// Pixels from the top.
    pub y: f32,
    /// Whether the point is part of the object.
    pub positive: bool,
}

/// What is known of one object, in pixels of the image: a box, points, or both, and perhaps an earlier mask.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectPrompt<'m> {
    /// x1, y1, x2, y2 around the object.
    pub box_xyxy: Option<[f32; 4]>,
    /// Points inside and outside.
    pub points: Vec<LabelledPoint>,
    /// Low-resolution logits of an earlier prediction on this image ([`Mask::low_res`](super::Mask::low_res)).
    pub mask: Option<&'m [f32]>,
}

impl<'m> ObjectPrompt<'m> {
    /// An object in a box.
    pub fn from_box(box_xyxy: [f32; 4]) -> Self {
        ObjectPrompt { box_xyxy: Some(box_xyxy), ..Self::default() }
    }
    /// An object at a point.
    pub fn from_point(x: f32, y: f32) -> Self {
        Self::default().with(x, y)
    }
    /// Also at this point.
    pub fn with(mut self, x: f32, y: f32) -> Self {
        self.points.push(LabelledPoint { x, y, positive: true });
        self
    }
    /// Not at this point.
    pub fn without(mut self, x: f32, y: f32) -> Self {
        self.points.push(LabelledPoint { x, y, positive: false });
        self
    }
    /// Near an earlier prediction.
    pub fn with_mask(mut self, low_res: &'m [f32]) -> Self {
        self.mask = Some(low_res);
        self
    }

    /// One sentence on what cannot be used.
    pub(super) fn check(&self, max_points: usize, low_res_hw: [usize; 2]) -> Result<(), String> {
        if self.box_xyxy.is_none() && self.points.is_empty() {
            return Err("its prompt has neither a box nor a point; give at least one".into());
        }
        if self.points.len() > max_points {
            let given = self.points.len();
            return Err(format!(
                "its prompt has {given} points, more than {max_points}; give fewer or raise the option max_points"
            ));
        }
        if let Some(corners @ [x1, y1, x2, y2]) = self.box_xyxy {
            if corners.iter().any(|v| !v.is_finite()) {
                return Err(format!("its box {corners:?} has a coordinate that is not a finite number"));
            }
            if x2 < x1 || y2 < y1 {
                return Err(format!("its box {corners:?} is not x1, y1, x2, y2 with x1 <= x2 and y1 <= y2"));
            }
        }
        if let Some(point) = self.points.iter().find(|p| !p.x.is_finite() || !p.y.is_finite()) {
            return Err(format!("its point ({}, {}) is not at a finite place", point.x, point.y));
        }
        let [height, width] = low_res_hw;
        match self.mask {
            Some(mask) if mask.len() != height * width => Err(format!(
                "its mask has {} logits, not {height} x {width}; pass the low-resolution logits of an earlier \
                 prediction",
                mask.len()
            )),
            Some(mask) if mask.iter().any(|v| !v.is_finite()) => {
                Err("its mask has a logit that is not a finite number".into())
            }
            _ => Ok(()),
        }
    }
}
