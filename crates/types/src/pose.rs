//! Poses: transforms by name, as trackers send them and recorders keep them.

/// A transform, by rows, lengths in millimetres: `to_from_from * point`.
pub type Matrix = [[f64; 4]; 4];

/// The transform that moves nothing.
pub const IDENTITY: Matrix =
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];

/// Name of the transform by which a recording keeps where the pixels of a frame lay when it was computed.
pub const COMPUTED_PLANE: &str = "UltramotionImageToTracker";

/// A pose that came with a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTransform {
    /// Its name without the ending "Transform", such as "ProbeToTracker", which maps probe coordinates to the
    /// tracker's (`tracker_from_probe`).
    pub name: String,
    /// Row-major, lengths in millimetres.
    pub matrix: Matrix,
    /// False when the tracker had lost the tool; the matrix then means nothing.
    pub valid: bool,
}

/// `a * b`: what `b` does, then what `a` does.
pub fn product(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|row| std::array::from_fn(|column| (0..4).map(|k| a[row][k] * b[k][column]).sum()))
}

/// A point moved by a transform.
pub fn moved(matrix: &Matrix, [x, y, z]: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|row| matrix[row][0] * x + matrix[row][1] * y + matrix[row][2] * z + matrix[row][3])
}

/// A transform of a plane's steps with its third column the unit normal of the first two: what lies off the plane is told from it in
/// millimetres. `None` if the plane is flat.
pub fn with_unit_normal(mut matrix: Matrix) -> Option<Matrix> {
    let [a, b] = [0, 1].map(|column| [0, 1, 2].map(|row: usize| matrix[row][column]));
    let normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    let length = normal.iter().map(|v| v * v).sum::<f64>().sqrt();
    if !length.is_normal() {
        return None;
    }
    for (row, v) in matrix.iter_mut().zip(normal) {
        row[2] = v / length;
    }
    Some(matrix)
}

/// The transform that undoes an affine one; `None` if it is flat.
pub fn inverse(m: &Matrix) -> Option<Matrix> {
    let cofactor = |i: usize, j: usize| {
        let [a, b, c, d] = [(i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3];
        m[a][c] * m[b][d] - m[a][d] * m[b][c]
    };
    let determinant: f64 = (0..3).map(|j| m[0][j] * cofactor(0, j)).sum();
    if !determinant.is_normal() {
        return None;
    }
    let turned = |i: usize, j: usize| cofactor(j, i) / determinant;
    let moved = |i: usize| -(0..3).map(|k| turned(i, k) * m[k][3]).sum::<f64>();
    let row = |i: usize| [turned(i, 0), turned(i, 1), turned(i, 2), moved(i)];
    Some([row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]])
}
