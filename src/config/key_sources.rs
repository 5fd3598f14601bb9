//! Where the keys are that seal the store.

use std::path::Path;

use crate::base::sources::Sources;
use crate::config::secret_ref::SecretRef;
use crate::store::keyring::{KeyRing, parse_keys};

/// Where the keys are, in the order of `store.keys`; paths start nowhere else than at the working directory.
#[derive(Clone, Debug, Default)]
pub struct KeySources(Vec<SecretRef>);

impl KeySources {
    /// What the configuration lists; relative paths in it start at `home`.
    pub fn new(listed: &[SecretRef], home: &Path) -> Self {
        let found = |reference: &SecretRef| match reference {
            SecretRef::File(path) => SecretRef::File(home.join(path)),
            variable => variable.clone(),
        };
        Self(listed.iter().map(found).collect())
    }

    /// All of them; the first key of the first one seals.
    pub fn all(&self) -> &[SecretRef] {
        &self.0
    }

    /// Reads all keys as they are now. What is wrong is told with its position in the list.
    pub fn read(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
        sources: &Sources,
    ) -> Result<KeyRing, Vec<(usize, String)>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (index, reference) in self.0.iter().enumerate() {
            let text = reference.read(Path::new(""), environment, sources);
            match text.and_then(|text| parse_keys(&text).map_err(|error| error.to_string())) {
                Ok(found) => keys.extend(found),
                Err(why) => problems.push((index, why)),
            }
        }
        match KeyRing::new(keys) {
            Some(ring) if problems.is_empty() => Ok(ring),
            _ => Err(problems),
        }
    }
}
