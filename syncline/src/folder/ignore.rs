//! What is not shared: the rules in `.synclineignore`, in gitignore syntax.
//!
//! A file may stand in any directory and speaks about what is beneath it; deeper files and later
//! lines win, and nothing can be taken back beneath an ignored directory. The files themselves
//! are shared like any other, so all sides have the same rules.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::key::{FileKey, IGNORE_FILE};

/// The rules of a folder.
#[derive(Debug, Default)]
pub struct IgnoreRules {
    root: PathBuf,
    /// By directory, relative to the folder.
    files: BTreeMap<PathBuf, Gitignore>,
}

impl IgnoreRules {
    /// No rules yet for the folder at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.into(), files: BTreeMap::new() }
    }

    /// Reads the rules in a directory (relative to the folder) again. Answers lines that are no
    /// rules, for the user to see.
    pub fn load(&mut self, directory: &Path) -> Option<String> {
        let file = self.root.join(directory).join(IGNORE_FILE);
        // A link could lead to rules that the other side does not have.
        if !std::fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
            self.files.remove(directory);
            return None;
        }
        let mut builder = GitignoreBuilder::new(self.root.join(directory));
        let problem = builder.add(&file).map(|error| error.to_string());
        match builder.build() {
            Ok(rules) => {
                self.files.insert(directory.into(), rules);
                problem
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Whether the rules in `directory` or above speak against `path` (relative to the folder).
    /// Directories above `path` are not looked at: [`IgnoreRules::ignores`] does that.
    pub fn ignores_here(&self, path: &Path, is_directory: bool) -> bool {
        if self.files.is_empty() {
            return false;
        }
        let mut directory = path.parent();
        while let Some(here) = directory {
            if let Some(rules) = self.files.get(here) {
                let matched = rules.matched(self.root.join(path), is_directory);
                if !matched.is_none() {
                    return matched.is_ignore();
                }
            }
            directory = here.parent();
        }
        false
    }

    /// Whether a file is not shared: by a rule about itself or about a directory on the way to it.
    pub fn ignores(&self, key: &FileKey) -> bool {
        !self.files.is_empty()
            && (key.directories().any(|directory| self.ignores_here(directory, true))
                || self.ignores_here(key.path(), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> (tempfile::TempDir, IgnoreRules) {
        let dir = tempfile::tempdir().unwrap();
        let mut rules = IgnoreRules::new(dir.path());
        for (directory, text) in files {
            std::fs::create_dir_all(dir.path().join(directory)).unwrap();
            std::fs::write(dir.path().join(directory).join(IGNORE_FILE), text).unwrap();
            assert_eq!(rules.load(Path::new(directory)), None);
        }
        (dir, rules)
    }

    fn ignored(rules: &IgnoreRules, path: &str) -> bool {
        rules.ignores(&FileKey::new(path.as_bytes()).unwrap())
    }

    #[test]
    fn rules_have_gitignore_syntax() {
        let (_dir, rules) = rules(&[("", "*.log\n/target/\n!keep.log\nbuild/**/x\n# comment\n")]);
        for path in ["a.log", "a/b.log", "target/a", "target/a/b", "build/q/x"] {
            assert!(ignored(&rules, path), "{path}");
        }
        for path in ["keep.log", "a/target", "a/target/b", "log", ".synclineignore"] {
            assert!(!ignored(&rules, path), "{path}");
        }
    }

    #[test]
    fn deeper_rules_win_but_not_beneath_an_ignored_directory() {
        let (_dir, rules) = rules(&[("", "*.tmp\nhidden/\n"), ("a", "!b.tmp\n"), ("hidden", "!x\n")]);
        assert!(ignored(&rules, "b.tmp"));
        assert!(!ignored(&rules, "a/b.tmp"));
        assert!(ignored(&rules, "hidden/x"));
    }

    #[test]
    fn rules_go_when_their_file_goes() {
        let (dir, mut rules) = rules(&[("", "*.log\n")]);
        std::fs::remove_file(dir.path().join(IGNORE_FILE)).unwrap();
        rules.load(Path::new(""));
        assert!(!ignored(&rules, "a.log"));
    }
}
