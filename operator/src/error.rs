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
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
