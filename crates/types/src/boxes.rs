//! Corner boxes.

/// Left, top, right, bottom; pixels of the frame unless said otherwise, right and bottom exclusive.
pub type BoxXyxy = [f64; 4];

/// Corners in pixels of a box given by centre and size as fractions of the frame.
pub fn xyxy_from_cxcywh([cx, cy, w, h]: [f32; 4], width: usize, height: usize) -> [f32; 4] {
    let (width, height) = (width as f32, height as f32);
    [(cx - w / 2.0) * width, (cy - h / 2.0) * height, (cx + w / 2.0) * width, (cy + h / 2.0) * height]
}

/// Intersection over union; 0 where the boxes share nothing.
pub fn iou(a: &BoxXyxy, b: &BoxXyxy) -> f64 {
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |b: &BoxXyxy| (b[2] - b[0]) * (b[3] - b[1]);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_of_known_boxes() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(iou(&a, &a), 1.0);
        assert_eq!(iou(&a, &[5.0, 0.0, 15.0, 10.0]), 50.0 / 150.0);
        assert_eq!(iou(&a, &[10.0, 0.0, 20.0, 10.0]), 0.0);
        assert_eq!(iou(&[1.0; 4], &[1.0; 4]), 0.0);
        assert_eq!(xyxy_from_cxcywh([0.5, 0.25, 0.5, 0.5], 40, 20), [10.0, 0.0, 30.0, 10.0]);
    }
}
