//! What clients listen for, and what the child is to be told of it.

use serde_json::json;

use super::Multiplexer;
use crate::bridge::era::{self, Era, Level};

impl Multiplexer {
    /// Has the log messages sent that a client wants. What was wanted once goes on being sent by the child, and is left
    /// out on the way to clients who want less.
    pub fn want_level(&self, level: Level) {
        let has_logging = self.introduction.get().is_some_and(|introduction| introduction.can("logging"));
        if self.era() == Era::Modern || !has_logging {
            return;
        }
        let is_news = {
            let mut state = self.state();
            let is_news = state.level.is_none_or(|told| level < told);
            state.level = state.level.min(Some(level)).or(Some(level));
            is_news
        };
        if is_news {
            self.ask_ourselves("logging/setLevel", &json!({ "level": level.name() }));
        }
    }

    /// What the child is to be told when a session asks for a level: the lowest that anybody asked for.
    pub fn note_level(&self, level: Level) -> Level {
        let lowest = self.audience.lowest_level().map_or(level, |lowest| lowest.min(level));
        self.state().level = Some(lowest);
        lowest
    }

    /// Has the child watch the resources that somebody listens for, and no others. `done` are those that clients asked it
    /// to watch themselves.
    pub fn watch(&self, done: Option<(&str, bool)>) {
        let wanted = self.audience.resources();
        let (news, gone) = {
            let mut state = self.state();
            match done {
                Some((resource, true)) => drop(state.watched.insert(resource.to_owned())),
                Some((resource, false)) => drop(state.watched.remove(resource)),
                None => {}
            }
            let news: Vec<_> = wanted.difference(&state.watched).cloned().collect();
            let gone: Vec<_> = state.watched.difference(&wanted).cloned().collect();
            state.watched = wanted;
            (news, gone)
        };
        if self.era() == Era::Modern {
            if !news.is_empty() || !gone.is_empty() {
                self.listen();
            }
            return;
        }
        for resource in news {
            self.ask_ourselves("resources/subscribe", &json!({ "uri": resource }));
        }
        for resource in gone {
            self.ask_ourselves("resources/unsubscribe", &json!({ "uri": resource }));
        }
    }

    /// Subscribes at a child of the newer era, to all that it tells of itself; the subscription that there was ends.
    fn listen(&self) {
        let resources = self.state().watched.clone();
        let mut params = json!({ "_meta": era::own_meta(), "notifications": { "toolsListChanged": true,
            "promptsListChanged": true, "resourcesListChanged": true } });
        if !resources.is_empty() {
            params["notifications"]["resourceSubscriptions"] = json!(resources);
        }
        let id = self.ask_ourselves("subscriptions/listen", &params);
        let before = std::mem::replace(&mut self.state().listening, id);
        if let Some(before) = before.filter(|before| self.forget(*before)) {
            self.cancel(before, None);
        }
    }

    /// Tells a child that was just started what is wanted of it.
    pub(super) fn take_up_audience(&self) {
        match self.era() {
            Era::Modern => {
                self.state().watched = self.audience.resources();
                self.listen();
            }
            Era::Handshake => {
                self.watch(None);
                if let Some(level) = self.audience.lowest_level() {
                    self.want_level(level);
                }
            }
        }
    }
}
