//! Names of classes as numbers.

use std::collections::HashMap;

/// Classes numbered from 1, in the order in which they come.
#[derive(Debug, Default)]
pub(super) struct Labels {
    numbers: HashMap<String, usize>,
}

impl Labels {
    /// The number of a class.
    pub(super) fn number(&mut self, label: &str) -> usize {
        if let Some(number) = self.numbers.get(label) {
            return *number;
        }
        let number = self.numbers.len() + 1;
        self.numbers.insert(label.to_owned(), number);
        number
    }

    /// All of them, 1 first.
    pub(super) fn in_order(&self) -> Vec<&str> {
        let mut labels: Vec<(&String, &usize)> = self.numbers.iter().collect();
        labels.sort_by_key(|(_, number)| **number);
        labels.into_iter().map(|(label, _)| label.as_str()).collect()
    }
}
