//! Where an entry names captured values: what those must be fit for, and which a connection is of no use without.

use std::collections::BTreeSet;

use crate::catalogue::entry::Entry;
use crate::catalogue::template::variables;
use crate::model::connection::{Captured, is_plain_segment};

/// The names of captured values by where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Into a path segment, a query parameter, or where callers name the tenant; or they say which tenant it is.
    segments: BTreeSet<String>,
    /// Into a header.
    headers: BTreeSet<String>,
    /// Into an origin.
    origins: BTreeSet<String>,
}

impl Uses {
    /// Reads an entry.
    pub fn of(entry: &Entry) -> Self {
        let mut uses = Self { segments: entry.realm.iter().cloned().collect(), ..Self::default() };
        let common = [(&entry.api.fill, &entry.api.headers)];
        for (fill, headers) in common.into_iter().chain(entry.apis.values().map(|api| (&api.fill, &api.headers))) {
            uses.segments.extend(fill.query.values().chain(fill.header.values()).cloned());
            uses.headers.extend(headers.always.values().flat_map(|value| variables(value)));
        }
        for api in entry.apis.values() {
            let paths = api.paths.iter().chain(&api.encoded_slash_paths);
            uses.segments.extend(paths.flat_map(|path| variables(path)));
            uses.origins.extend(variables(&api.origin));
        }
        uses
    }

    /// Whether anything but people needs the value.
    pub fn needs(&self, name: &str) -> bool {
        [&self.segments, &self.headers, &self.origins].iter().any(|names| names.contains(name))
    }

    /// Whether a value can stand wherever the entry puts it.
    pub fn accepts(&self, name: &str, value: &str) -> bool {
        let is_printable = || !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (!self.segments.contains(name) || is_plain_segment(value))
            && (!(self.headers.contains(name) || self.origins.contains(name)) || is_printable())
    }
}

/// The values that look-ups bring and that something needs.
pub fn needed_of_look_ups(entry: &Entry) -> BTreeSet<String> {
    let uses = Uses::of(entry);
    let names = entry.post_connect.iter().flat_map(|look_up| look_up.capture.keys());
    names.filter(|name| uses.needs(name)).cloned().collect()
}

/// The values of these names.
pub fn only_of<'n>(captured: &Captured, names: impl IntoIterator<Item = &'n String>) -> Captured {
    names.into_iter().filter_map(|name| Some((name.clone(), captured.get(name)?.clone()))).collect()
}
