//! Files that are there whole or not at all.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::error::MediaError;

/// A file that is written beside the place where it is to be. It gets its name when it is finished, in the place of one that
/// has it; until then, and when it is dropped, nothing is there.
#[derive(Debug)]
pub(super) struct Draft {
    file: BufWriter<NamedTempFile>,
    target: Target,
}

/// Where a draft is to be.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was given.
    name: PathBuf,
    /// Where links lead to.
    path: PathBuf,
}

impl Draft {
    pub(super) fn create(path: &Path) -> Result<Self, MediaError> {
        let target = Target::new(path)?;
        let file = target.neighbour("")?;
        Ok(Self { file: BufWriter::new(file), target })
    }

    /// A file in the same folder that nobody sees, for what has to wait.
    pub(super) fn scratch(&self) -> Result<File, MediaError> {
        self.target.neighbour("").map(NamedTempFile::into_file)
    }

    /// An error of the operating system with the name of the file.
    pub(super) fn cannot_write(&self) -> impl FnOnce(io::Error) -> MediaError + use<> {
        self.target.cannot_write()
    }

    /// As it was given.
    pub(super) fn name(&self) -> &Path {
        &self.target.name
    }

    /// An error with the name of the file.
    pub(super) fn export(&self, problem: impl Into<String>) -> MediaError {
        MediaError::export(&self.target.name, problem)
    }

    /// Gives the file its name.
    pub(super) fn finish(self) -> Result<(), MediaError> {
        let Draft { file, target } = self;
        let file = file.into_inner().map_err(|error| target.cannot_write()(error.into_error()))?;
        target.put(file.into_temp_path())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target {
    /// A place for a file. What is there already must be one: a device or a pipe cannot be replaced.
    pub(super) fn new(name: &Path) -> Result<Self, MediaError> {
        let target = |path| Self { name: name.to_owned(), path };
        match std::fs::metadata(name) {
            Ok(metadata) if metadata.is_file() => {
                Ok(target(std::fs::canonicalize(name).unwrap_or(name.into())))
            }
            Ok(metadata) if metadata.is_dir() => {
                Err(MediaError::io("write", name)(io::ErrorKind::IsADirectory.into()))
            }
            Ok(_) => {
                Err(MediaError::export(name, "it is there, and it is not a file: give the name of a file"))
            }
            Err(_) => Ok(target(name.to_owned())),
        }
    }

    /// An empty file in the same folder, with a name of its own, which is removed when it is dropped.
    pub(super) fn neighbour(&self, ending: &str) -> Result<NamedTempFile, MediaError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix(".ultramotion-").suffix(ending);
        if let Some(permissions) = of_any_file() {
            builder.permissions(permissions);
        }
        builder.tempfile_in(folder.unwrap_or(Path::new("."))).map_err(self.cannot_write())
    }

    /// Gives a neighbour the name, in the place of a file that has it.
    pub(super) fn put(&self, neighbour: TempPath) -> Result<(), MediaError> {
        neighbour.persist(&self.path).map_err(|error| self.cannot_write()(error.error))
    }

    /// An error of the operating system with the name of the file.
    pub(super) fn cannot_write(&self) -> impl FnOnce(io::Error) -> MediaError + use<> {
        MediaError::io("write", &self.name)
    }

    /// As it was given.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }
}

/// Read and write for all whom the process's mask lets; temporary files are their owner's alone otherwise.
#[cfg(unix)]
fn of_any_file() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;

    Some(Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn of_any_file() -> Option<Permissions> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_once_it_is_finished_and_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let entries = || std::fs::read_dir(folder.path()).unwrap().count();
        for text in ["first", "second"] {
            let mut dropped = Draft::create(&path).unwrap();
            dropped.write_all(b"half").unwrap();
            drop(dropped);
            let mut draft = Draft::create(&path).unwrap();
            draft.write_all(text.as_bytes()).unwrap();
            assert_ne!(std::fs::read_to_string(&path).unwrap_or_default(), text);
            draft.finish().unwrap();
            assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), entries()), (text, 1));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_a_device_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.csv"), folder.path().join("link.csv"));
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut draft = Draft::create(&link).unwrap();
        draft.write_all(b"through").unwrap();
        draft.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "through");
        let problem = Draft::create(Path::new("/dev/null")).unwrap_err().to_string();
        assert_eq!(
            problem,
            "cannot write /dev/null: it is there, and it is not a file: give the name of a file"
        );
        let problem = Draft::create(folder.path()).unwrap_err().to_string();
        assert!(problem.ends_with("it is a folder"), "{problem}");
        let problem = Draft::create(Path::new("/no/such/folder/a.csv")).unwrap_err().to_string();
        assert_eq!(problem, "cannot write /no/such/folder/a.csv: there is no such file or folder");
    }
}
