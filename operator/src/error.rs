//! Why a reconcile did not come to its end.

use crate::apply::ApplyError;
use crate::ca::SecretError;
use crate::latch::LatchError;
use crate::token::{KeyStoreError, TokenError};

/// Why a reconcile did not come to its end; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// An object could not be applied or deleted.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A Secret with a certificate could not be brought up to date.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The tenant's keys are not at hand.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A token could not be signed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A revocation could not be kept.
    #[error(transparent)]
    Latch(#[from] LatchError),
    /// The API server refused or could not be reached.
    #[error("failed to {verb}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// What the API server said.
        source: kube::Error,
    },
    /// The object lacks what the API server gives to every object.
    #[error("failed to read {0} of the object")]
    Incomplete(&'static str),
}

impl ReconcileError {
    /// Names what was tried.
    pub fn api(verb: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self::Api { verb, source }
    }

    /// What the API server answered, if it did.
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Apply(ApplyError::Api { source, .. })
            | Self::Secret(SecretError::Api { source, .. })
            | Self::Keys(KeyStoreError::Api { source, .. })
            | Self::Api { source, .. } => match source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether what we knew was older than what is there: the next look will do.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether trying again will not help until someone changes something.
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 422))
            || matches!(self, Self::Apply(ApplyError::NotOurs { .. }) | Self::Secret(SecretError::NotOurs { .. }))
    }

    /// The whole chain, for a condition.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error with everything that caused it, in one line. What the API server said is taken as it said it.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            text.push_str(&status.message);
            break;
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_said_is_said_once() {
        let status = kube::core::Status { message: "pods is forbidden".into(), code: 403, ..Default::default() };
        let error = ReconcileError::api("list the pods")(kube::Error::Api(Box::new(status)));
        assert_eq!(error.chain(), "failed to list the pods: pods is forbidden");
    }
}
