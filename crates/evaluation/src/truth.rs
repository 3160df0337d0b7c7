//! A mask as the objects that are there.

use ultramotion_types::BitMask;
use ultramotion_types::boxes::BoxXyxy;

use super::classes::{MIN_AREA_SHARE, MaskClasses, ObjectRule};
use super::mask_file::{MaskImage, MaskValue};

/// A structure that a frame shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrueObject {
    /// Position of its class in [`MaskClasses::names`].
    pub class: usize,
    /// Around its pixels.
    pub box_xyxy: BoxXyxy,
    /// Its pixels.
    pub mask: BitMask,
}

/// The objects of a mask, by class; an error is a value that no class has.
pub(crate) fn objects(
    mask: &MaskImage,
    classes: &MaskClasses,
    rule: ObjectRule,
) -> Result<Vec<TrueObject>, MaskValue> {
    let is_known = |value: MaskValue| value == MaskValue::BACKGROUND || classes.name_of(value).is_some();
    if let Some(unknown) = mask.values.iter().copied().find(|value| !is_known(*value)) {
        return Err(unknown);
    }
    let (width, height) = (mask.width, mask.height);
    let mut objects = Vec::new();
    for (class, name) in classes.names().into_iter().enumerate() {
        let inside: Vec<bool> = mask.values.iter().map(|v| classes.name_of(*v) == Some(name)).collect();
        let regions = match rule {
            ObjectRule::Components => components(&inside, width),
            ObjectRule::OnePerClass => vec![(0..inside.len()).filter(|&i| inside[i]).collect()],
        };
        let least = match rule {
            ObjectRule::Components => MIN_AREA_SHARE * inside.len() as f64,
            ObjectRule::OnePerClass => 0.0,
        };
        for region in regions.into_iter().filter(|region| region.len() as f64 >= least) {
            let mut mask = BitMask::new(width, height);
            for i in region {
                mask.set(i % width, i / width, true);
            }
            // A class that the frame does not show has no box.
            if let Some(box_xyxy) = mask.view().box_xyxy() {
                objects.push(TrueObject { class, box_xyxy: box_xyxy.map(|v| v as f64), mask });
            }
        }
    }
    Ok(objects)
}

/// Connected components (of eight neighbours) of the pixels that are inside, in the order of their first pixels.
fn components(inside: &[bool], width: usize) -> Vec<Vec<usize>> {
    let mut left = inside.to_vec();
    let mut components = Vec::new();
    for start in 0..left.len() {
        if !std::mem::take(&mut left[start]) {
            continue;
        }
        let mut component = vec![start];
        let mut next = 0;
        while next < component.len() {
            let at = component[next];
            next += 1;
            let (x, y) = (at % width, at / width);
            for neighbour_y in y.saturating_sub(1)..=y + 1 {
                for neighbour_x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    let neighbour = neighbour_y * width + neighbour_x;
                    if left.get(neighbour) == Some(&true) {
                        left[neighbour] = false;
                        component.push(neighbour);
                    }
                }
            }
        }
        components.push(component);
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 60 x 50 mask from rectangles (x1, y1, x2, y2, value); objects of 1 pixel are below the least share, of 2 above.
    fn mask(rectangles: &[(usize, usize, usize, usize, u16)]) -> MaskImage {
        let mut values = vec![MaskValue::BACKGROUND; 60 * 50];
        for &(x1, y1, x2, y2, value) in rectangles {
            for y in y1..y2 {
                values[y * 60 + x1..y * 60 + x2].fill(MaskValue::Number(value));
            }
        }
        MaskImage { width: 60, height: 50, values }
    }

    #[test]
    fn components_of_a_class_are_objects_and_specks_are_not() {
        let classes: MaskClasses = "nerve=1,vessel=2".parse().unwrap();
        let mask = mask(&[
            (5, 5, 15, 9, 2),
            (15, 9, 20, 12, 2), // touches at a corner: the same object
            (40, 5, 50, 9, 2),
            (5, 5, 7, 7, 1),     // in the corner of the first
            (58, 48, 59, 49, 1), // a speck
            (0, 49, 2, 50, 1),
        ]);
        let found = objects(&mask, &classes, ObjectRule::Components).unwrap();
        let summary: Vec<_> = found.iter().map(|o| (o.class, o.box_xyxy, o.mask.view().area_px())).collect();
        assert_eq!(
            summary,
            [
                (0, [5.0, 5.0, 7.0, 7.0], 4),
                (0, [0.0, 49.0, 2.0, 50.0], 2),
                (1, [5.0, 5.0, 20.0, 12.0], 40 - 4 + 15),
                (1, [40.0, 5.0, 50.0, 9.0], 40),
            ]
        );
        let whole = objects(&mask, &classes, ObjectRule::OnePerClass).unwrap();
        let summary: Vec<_> = whole.iter().map(|o| (o.class, o.box_xyxy)).collect();
        assert_eq!(summary, [(0, [0.0, 5.0, 59.0, 50.0]), (1, [5.0, 5.0, 50.0, 12.0])]);
    }

    #[test]
    fn a_row_does_not_go_on_in_the_next() {
        let classes: MaskClasses = "a=1".parse().unwrap();
        let mask = mask(&[(58, 10, 60, 11, 1), (0, 11, 2, 12, 1)]);
        assert_eq!(objects(&mask, &classes, ObjectRule::Components).unwrap().len(), 2);
    }

    #[test]
    fn empty_masks_and_unknown_values() {
        let classes: MaskClasses = "a=1".parse().unwrap();
        for rule in [ObjectRule::Components, ObjectRule::OnePerClass] {
            assert_eq!(objects(&mask(&[]), &classes, rule), Ok(vec![]));
            assert_eq!(objects(&mask(&[(1, 1, 4, 4, 3)]), &classes, rule), Err(MaskValue::Number(3)));
        }
    }
}
