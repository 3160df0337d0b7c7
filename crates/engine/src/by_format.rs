//! What was compiled for each format of frame, of which the few used last are kept.

/// A folder of stills may mix a few sizes, and a source that changes its format mostly changes it back.
const KEPT_FORMATS: usize = 4;

/// Programs by the format of frames that they are for.
#[derive(Debug)]
pub struct ByFormat<F, P> {
    /// Most recently used last.
    programs: Vec<(F, P)>,
}

impl<F, P> Default for ByFormat<F, P> {
    fn default() -> Self {
        ByFormat { programs: Vec::with_capacity(KEPT_FORMATS + 1) }
    }
}

impl<F: PartialEq, P> ByFormat<F, P> {
    /// Makes the program for a format the current one, if it is kept. Allocates nothing, and moves nothing when the format
    /// is the last one's.
    pub fn find(&mut self, format: &F) -> Option<&mut P> {
        let position = self.programs.iter().position(|(f, _)| f == format)?;
        self.programs[position..].rotate_left(1);
        self.current_mut()
    }

    /// Keeps a program, which is the current one now, in place of one for the same format.
    pub fn put(&mut self, format: F, program: P) {
        self.programs.retain(|(f, _)| *f != format);
        self.programs.push((format, program));
    }

    /// Lets the ones go that were not used for longest, until what is left is good enough; never the current one.
    pub fn let_go_until(&mut self, is_enough: impl Fn(&Self) -> bool) {
        while self.programs.len() > 1 && !is_enough(self) {
            self.programs.remove(0);
        }
    }

    /// The program for a format, compiled if it is not kept. Moves and allocates nothing when the format is the last one's.
    ///
    /// # Errors
    /// Those of `compile`; what was kept stays.
    pub fn select<E>(&mut self, format: F, compile: impl FnOnce() -> Result<P, E>) -> Result<&mut P, E> {
        if self.find(&format).is_none() {
            self.put(format, compile()?);
            self.let_go_until(|kept| kept.programs.len() <= KEPT_FORMATS);
        }
        Ok(self.current_mut().expect("one was just put there"))
    }

    /// The one selected last.
    pub fn current(&self) -> Option<&P> {
        self.programs.last().map(|(_, program)| program)
    }

    /// The one selected last.
    pub fn current_mut(&mut self) -> Option<&mut P> {
        self.programs.last_mut().map(|(_, program)| program)
    }

    /// All that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        self.programs.iter().map(|(_, program)| program)
    }

    /// Lets all go.
    pub fn clear(&mut self) {
        self.programs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_used_last_are_kept() {
        let mut programs = ByFormat::default();
        let mut compiled = Vec::new();
        for format in [1, 2, 3, 4, 1, 5, 1, 2, 3] {
            let program = programs.select(format, || {
                compiled.push(format);
                Ok::<_, ()>(10 * format)
            });
            assert_eq!(program, Ok(&mut (10 * format)));
            assert_eq!(programs.current(), Some(&(10 * format)));
        }
        assert_eq!(compiled, [1, 2, 3, 4, 5, 2, 3], "5 took the place of 2, 2 that of 3, 3 that of 4");
        assert_eq!(programs.select(6, || Err("no")), Err("no"));
        assert_eq!(programs.iter().copied().collect::<Vec<_>>(), [50, 10, 20, 30]);
        assert_eq!(programs.find(&7), None);
        assert_eq!(programs.find(&1), Some(&mut 10));
        programs.put(5, 55);
        assert_eq!(programs.iter().copied().collect::<Vec<_>>(), [20, 30, 10, 55]);
        programs.let_go_until(|kept| kept.iter().sum::<i32>() <= 65);
        assert_eq!(programs.iter().copied().collect::<Vec<_>>(), [10, 55]);
        programs.let_go_until(|_| false);
        assert_eq!(programs.current(), Some(&55), "the current one stays");
    }
}
