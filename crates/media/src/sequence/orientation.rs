//! Which way the pixels of an ultrasound image lie.

/// Of PLUS's codes: the first axis, then the second, each towards the marked (M) or unmarked (U) side of the probe, or far (F) from
/// it or near (N); a third letter is about the order of slices. PLUS has B-mode as MF, and its poses belong to such pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// Pixels become MF by these steps.
    Known(Turn),
    /// Nothing is known, and nothing done.
    Unknown,
}

/// What makes an image MF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Rows become columns, before the rest.
    transposed: bool,
    mirrored: bool,
    upside_down: bool,
}

impl Orientation {
    pub(crate) fn from_code(code: &str) -> Self {
        let code = code.to_ascii_uppercase();
        let letters: Vec<char> = code.chars().collect();
        let turn = match letters[..] {
            [a @ ('M' | 'U'), b @ ('F' | 'N'), ..] => {
                Turn { transposed: false, mirrored: a == 'U', upside_down: b == 'N' }
            }
            [a @ ('F' | 'N'), b @ ('M' | 'U'), ..] => {
                Turn { transposed: true, mirrored: b == 'U', upside_down: a == 'N' }
            }
            _ => return Orientation::Unknown,
        };
        if letters.len() > 3 { Orientation::Unknown } else { Orientation::Known(turn) }
    }

    /// What is to be done about an image.
    pub(crate) fn turn(self) -> Turn {
        match self {
            Orientation::Known(turn) => turn,
            Orientation::Unknown => Turn::default(),
        }
    }
}

impl Turn {
    /// Width and height, or their spacing, of what is turned.
    pub(crate) fn sides<T>(self, [a, b]: [T; 2]) -> [T; 2] {
        if self.transposed { [b, a] } else { [a, b] }
    }

    /// Turns an image of this size before it is turned; `scratch` is memory that is used again.
    pub(crate) fn apply(
        self,
        pixels: &mut Vec<u8>,
        [width, height]: [usize; 2],
        channels: usize,
        scratch: &mut Vec<u8>,
    ) {
        if self == Turn::default() {
            return;
        }
        let [new_width, new_height] = self.sides([width, height]);
        scratch.clear();
        scratch.reserve(pixels.len());
        for y in 0..new_height {
            let y = if self.upside_down { new_height - 1 - y } else { y };
            for x in 0..new_width {
                let x = if self.mirrored { new_width - 1 - x } else { x };
                let from = if self.transposed { x * width + y } else { y * width + x };
                scratch.extend_from_slice(&pixels[from * channels..][..channels]);
            }
        }
        std::mem::swap(pixels, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_scene_in_every_orientation_is_the_same_image() {
        // The marked side is on the left, near is at the top.
        let scene = [[1_u8, 2, 3], [4, 5, 6]];
        let stored: [(&str, usize, [u8; 6]); 8] = [
            ("MF", 3, [1, 2, 3, 4, 5, 6]),
            ("UF", 3, [3, 2, 1, 6, 5, 4]),
            ("MNA", 3, [4, 5, 6, 1, 2, 3]),
            ("und", 3, [6, 5, 4, 3, 2, 1]),
            ("FM", 2, [1, 4, 2, 5, 3, 6]),
            ("NM", 2, [4, 1, 5, 2, 6, 3]),
            ("FUA", 2, [3, 6, 2, 5, 1, 4]),
            ("NU", 2, [6, 3, 5, 2, 4, 1]),
        ];
        for (code, width, pixels) in stored {
            let turn = Orientation::from_code(code).turn();
            let mut image: Vec<u8> = pixels.iter().flat_map(|&v| [v, v + 10]).collect();
            turn.apply(&mut image, [width, 6 / width], 2, &mut Vec::new());
            assert_eq!(turn.sides([width, 6 / width]), [3, 2], "{code}");
            let expected: Vec<u8> = scene.concat().iter().flat_map(|&v| [v, v + 10]).collect();
            assert_eq!(image, expected, "{code}");
        }
        for unknown in ["XX", "", "M", "MM", "MFAX", "FN"] {
            assert_eq!(Orientation::from_code(unknown), Orientation::Unknown, "{unknown}");
        }
    }
}
