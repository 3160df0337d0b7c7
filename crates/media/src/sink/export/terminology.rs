//! What structures are called in the terminology that 3D Slicer's segments refer to.

/// The codes of a kind of structure in SNOMED CT, by the words that a label has in it. The first that fits is taken.
const TYPES: [(&str, &str); 9] = [
    ("artery", "SCT^51114001^Artery"),
    ("vein", "SCT^29092000^Vein"),
    ("vessel", "SCT^59820001^Blood vessel"),
    ("nerve", "SCT^119410002^Nerve"),
    ("bone", "SCT^272673000^Bone"),
    ("muscle", "SCT^71616004^Muscle"),
    ("tendon", "SCT^13024002^Tendon"),
    ("ligament", "SCT^52082005^Ligament"),
    ("skin", "SCT^39937001^Skin"),
];

/// What everything else is.
const TISSUE: &str = "SCT^85756007^Tissue";

/// A segment's entry in 3D Slicer's terminology, as its tag `TerminologyEntry` has it: context, category, type, type modifier,
/// context of the region, region, region modifier, each a scheme, a value and a meaning.
pub(super) fn entry(label: &str) -> String {
    let label = label.to_lowercase();
    let kind = TYPES.iter().find(|(word, _)| label.contains(word)).map_or(TISSUE, |(_, code)| code);
    format!(
        "Segmentation category and type - 3D Slicer General Anatomy list~{TISSUE}~{kind}~^^~Anatomic codes - DICOM master \
         list~^^~^^"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_tissue() {
        assert!(entry("Vessel").contains("~SCT^85756007^Tissue~SCT^59820001^Blood vessel~^^~"));
        assert!(entry("user").contains("~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~"));
        for (word, code) in TYPES {
            assert!(entry(word).contains(code), "{word}");
        }
    }
}
