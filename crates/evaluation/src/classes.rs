//! Which value of a mask means which class: `--classes nerve=1,vessel=2`, or found out from the masks.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::error::EvaluationError;
use super::mask_file::MaskValue;

/// How the pixels of a class become objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectRule {
    /// Each connected component (of eight neighbours) of at least 0.05 % of the image.
    Components,
    /// All pixels of a class are one object.
    OnePerClass,
}

/// Components below this share of the image are brush specks, not structures.
pub(crate) const MIN_AREA_SHARE: f64 = 5e-4;

/// Values and the classes that they mean. Value 0 (black) is background, always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskClasses {
    entries: Vec<(String, MaskValue)>,
}

impl MaskClasses {
    /// Class names, each once, in the order given.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (name, _) in &self.entries {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Name of a value's class.
    pub(crate) fn name_of(&self, value: MaskValue) -> Option<&str> {
        self.entries.iter().find(|(_, v)| *v == value).map(|(name, _)| name.as_str())
    }

    /// Whether colours are named, so that a palette's indices mean nothing.
    pub(crate) fn by_colour(&self) -> bool {
        self.entries.iter().any(|(_, value)| matches!(value, MaskValue::Colour(_)))
    }

    /// The convention of masks that hold these values beside the background: 1 and 2 are nerve and vessel, as in
    /// usgra; one value alone is the vessel, one a frame, as in the carotid clips.
    pub(crate) fn guess(values: &BTreeSet<MaskValue>) -> Option<(Self, ObjectRule)> {
        let of = |name: &str, value| (name.to_owned(), value);
        let [one, two] = [1, 2].map(MaskValue::Number);
        let values: Vec<MaskValue> = values.iter().copied().collect();
        match values[..] {
            [value] if value != two => {
                Some((MaskClasses { entries: vec![of("vessel", value)] }, ObjectRule::OnePerClass))
            }
            [v] | [_, v] if v == two => Some((
                MaskClasses { entries: vec![of("nerve", one), of("vessel", two)] },
                ObjectRule::Components,
            )),
            _ => None,
        }
    }
}

impl fmt::Display for MaskClasses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.entries.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for MaskClasses {
    type Err = EvaluationError;

    /// `name=value,…`: a value is a number (palette index or grey value) or a colour `#rrggbb`; a class may have
    /// several.
    fn from_str(text: &str) -> Result<Self, EvaluationError> {
        parse(text).map_err(EvaluationError::Classes)
    }
}

fn parse(text: &str) -> Result<MaskClasses, String> {
    let mut classes = MaskClasses { entries: Vec::new() };
    for entry in text.split(',') {
        let (name, value) = entry
            .split_once('=')
            .ok_or_else(|| format!("'{entry}' is not NAME=VALUE, as in nerve=1,vessel=2"))?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() {
            return Err(format!("'{entry}' names no class; write it as in nerve=1,vessel=2"));
        }
        let parsed = match value.strip_prefix('#') {
            Some(digits) if digits.len() == 6 => {
                let part = |i: usize| digits.get(2 * i..2 * i + 2).map(|d| u8::from_str_radix(d, 16));
                match [part(0), part(1), part(2)] {
                    [Some(Ok(r)), Some(Ok(g)), Some(Ok(b))] => Some(MaskValue::colour([r, g, b])),
                    _ => None,
                }
            }
            Some(_) => None,
            None => value.parse().ok().map(MaskValue::Number),
        };
        let parsed = parsed.ok_or_else(|| {
            format!("'{value}' in '{entry}' is neither a number from 1 to 65535 nor a colour such as #ff0000")
        })?;
        if parsed == MaskValue::BACKGROUND {
            return Err(format!("'{entry}': 0 is the background; classes have values from 1"));
        }
        if let Some(other) = classes.name_of(parsed) {
            return Err(format!("the value {parsed} is given to '{other}' and to '{name}'"));
        }
        classes.entries.push((name.to_owned(), parsed));
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        let classes: MaskClasses = "nerve=1, vessel=2,vessel=#FF0000".parse().unwrap();
        assert_eq!(classes.to_string(), "nerve=1,vessel=2,vessel=#ff0000");
        assert_eq!(classes.names(), ["nerve", "vessel"]);
        assert_eq!(classes.name_of(MaskValue::Colour([255, 0, 0])), Some("vessel"));
        assert_eq!(classes.name_of(MaskValue::Number(3)), None);
        assert!(classes.by_colour() && !"a=7".parse::<MaskClasses>().unwrap().by_colour());
        for wrong in
            ["", "nerve", "=1", "nerve=", "nerve=0", "nerve=x", "a=1,b=1", "a=#12", "a=#ggffff", "a=#äöü"]
        {
            assert!(wrong.parse::<MaskClasses>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn conventions_are_known_by_their_values() {
        let guess = |values: &[u16]| {
            let guess = MaskClasses::guess(&values.iter().map(|&v| MaskValue::Number(v)).collect());
            guess.map(|(classes, rule)| (classes.to_string(), rule))
        };
        let usgra = Some(("nerve=1,vessel=2".to_owned(), ObjectRule::Components));
        assert_eq!(guess(&[1, 2]), usgra);
        assert_eq!(guess(&[2]), usgra);
        assert_eq!(guess(&[1]), Some(("vessel=1".to_owned(), ObjectRule::OnePerClass)));
        assert_eq!(guess(&[255]), Some(("vessel=255".to_owned(), ObjectRule::OnePerClass)));
        for unknown in [&[][..], &[1, 3], &[2, 3], &[1, 2, 3], &[128, 255]] {
            assert_eq!(guess(unknown), None, "{unknown:?}");
        }
    }
}
