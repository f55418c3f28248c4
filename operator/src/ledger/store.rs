//! Storage of books: `MCPLedger` objects in the operator's namespace, written by compare-and-swap.
//!
//! A book is transferred whole only when it is read, and to the API server when it is written. Lists and the answers to
//! writes contain only metadata.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, ListParams, ObjectMeta, PartialObjectMeta, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_crds::MCPLedger;

use super::book::Book;
use super::period::{Span, time_for_name, time_from_name};
use super::record::{Owner, from_record, to_record};
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;

/// Number of books in one page of a list. The metadata of one book has about 1 KiB.
const PAGE_SIZE: u32 = 500;
/// Label with the UID of the budget.
const BUDGET_UID: &str = "mcp-fleet.dev/budget-uid";
/// Label of closed books: the time at which the book may be removed.
const RETAINED_UNTIL: &str = "mcp-fleet.dev/retained-until";
/// Asks the API server to answer a write with metadata only.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Identifies a book: one budget in one period.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BookKey {
    /// UID of the budget.
    pub budget_uid: String,
    /// Start of the period, Unix seconds.
    pub start: i64,
}

/// Start of the book that collects the rows of all closed periods of a spend limit.
const CLOSED_PERIODS: i64 = 0;
/// How long a closed period is retained at least, in seconds; see [`retained_until`].
const MIN_RETENTION: i64 = 2 * 24 * 3600;

/// Returns until when a closed period is retained, in Unix seconds: two periods after its end, but at least two days.
pub(super) fn retained_until(span: Span) -> i64 {
    span.end.saturating_add(span.end.saturating_sub(span.start).saturating_mul(2).max(MIN_RETENTION))
}

impl BookKey {
    /// Returns the key of the book that collects the rows of all closed periods of a spend limit.
    pub(super) fn closed_periods(budget_uid: &str) -> Self {
        Self { budget_uid: budget_uid.to_owned(), start: CLOSED_PERIODS }
    }

    /// Returns whether this is the key of a book that collects the rows of all closed periods.
    pub(super) const fn is_closed_periods(&self) -> bool {
        self.start == CLOSED_PERIODS
    }

    /// Returns the name of the `MCPLedger`; none if the UID does not have the form that Kubernetes gives UIDs.
    pub(super) fn name(&self) -> Option<String> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=64).contains(&self.budget_uid.len()) && self.budget_uid.bytes().all(is_allowed);
        valid.then(|| format!("{}-{}", self.budget_uid, time_for_name(self.start)))
    }

    /// Returns the key of the `MCPLedger` with this metadata; none if its name is not one that [`Self::name`] gives.
    fn from_metadata(object: &impl ResourceExt) -> Option<Self> {
        let budget_uid = object.labels().get(BUDGET_UID)?;
        let start = time_from_name(object.name_any().strip_prefix(budget_uid)?.strip_prefix('-')?)?;
        Some(Self { budget_uid: budget_uid.clone(), start })
    }
}

/// Selects the books to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Books that can change.
    Open,
    /// Books of closed periods, of which only totals are left.
    Closed,
}

/// What a list shows of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub key: BookKey,
    /// Version in the store.
    pub version: String,
    /// Time at which a closed book may be removed, Unix seconds; none for an open one.
    pub retained_until: Option<i64>,
}

/// One page of a list of books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub books: Vec<Listed>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

/// A book as it was last read or written, with its version in the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredBook {
    /// Tenant and budget of the book.
    pub owner: Owner,
    pub book: Book,
    /// Version in the store; a write must name it.
    pub version: String,
}

/// Why a book could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Another writer changed the book since it was read.
    #[error("failed to write a ledger: it was changed by another writer")]
    Conflict,
    /// The store could not be reached or refused the request. A write may still have happened.
    #[error("failed to access the ledger store")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stored object is not a valid book.
    #[error("failed to parse a ledger")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store with compare-and-swap. Reads are consistent: they see every write that was acknowledged before.
pub(crate) trait Store: Send + Sync + 'static {
    /// Reads a book; none if it does not exist.
    fn read(&self, key: &BookKey) -> impl Future<Output = Result<Option<StoredBook>, StoreError>> + Send;
    /// Replaces `version` of a book, or creates the book if `version` is none. Returns the new version.
    fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> impl Future<Output = Result<String, StoreError>> + Send;
    /// Lists books, page by page. `page` is [`Page::next`] of the page before, and none for the first.
    fn list(&self, selection: Selection, page: Option<String>)
    -> impl Future<Output = Result<Page, StoreError>> + Send;
    /// Removes a book if it still has this version.
    fn remove(&self, key: &BookKey, version: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Stores books in the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiStore {
    api: Api<MCPLedger>,
    /// Builds requests to the collection of `api`.
    request: Request,
}

impl ApiStore {
    /// Creates a store in `namespace`, the operator's namespace.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        let request = Request::new(MCPLedger::url_path(&(), Some(namespace)));
        Self { api: Api::namespaced(client, namespace), request }
    }

    /// Creates or replaces an object. Returns the metadata of the object as it was written.
    async fn put(&self, object: &MCPLedger) -> Result<PartialObjectMeta<MCPLedger>, kube::Error> {
        let bytes = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let request = match object.metadata.resource_version {
            None => self.request.create(&params, bytes),
            Some(_) => self.request.replace(&object.name_any(), &params, bytes),
        };
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        if let Ok(accept) = METADATA_ONLY.parse() {
            request.headers_mut().insert("accept", accept);
        }
        self.api.clone().into_client().request(request).await
    }
}

fn store_error(error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict,
        _ => StoreError::Unavailable(error.into()),
    }
}

/// Returns the object of a book.
pub(super) fn object(
    key: &BookKey,
    owner: &Owner,
    book: &Book,
    version: Option<&str>,
) -> Result<MCPLedger, StoreError> {
    let name = key.name().ok_or_else(|| StoreError::Unreadable("the budget's UID is not valid in a name".into()))?;
    let mut labels: BTreeMap<String, String> = labels::of_tenant("ledger", &owner.tenant, &owner.tenant_uid);
    labels.insert(BUDGET_UID.into(), owner.budget_uid.clone());
    if book.is_closed() {
        labels.insert(RETAINED_UNTIL.into(), time_for_name(retained_until(book.span)));
    }
    let mut object = MCPLedger::new(&name, to_record(owner, book));
    object.metadata = ObjectMeta {
        name: Some(name),
        labels: Some(labels),
        resource_version: version.map(str::to_owned),
        ..ObjectMeta::default()
    };
    Ok(object)
}

/// Reads the book of an object.
pub(super) fn parse(object: &MCPLedger) -> Result<StoredBook, StoreError> {
    let (owner, book) = from_record(&object.spec).map_err(|error| StoreError::Unreadable(error.into()))?;
    Ok(StoredBook { owner, book, version: object.resource_version().unwrap_or_default() })
}

/// Returns what a list shows of a book; none if the name or a label of its object is invalid, because one invalid object
/// must not block the ledger of all tenants.
pub(super) fn listed(object: &impl ResourceExt) -> Option<Listed> {
    let Some(key) = BookKey::from_metadata(object) else {
        tracing::error!(ledger = object.name_any(), "skipped a ledger whose name or label is invalid");
        return None;
    };
    let version = object.resource_version().unwrap_or_default();
    let retained_until = object.labels().get(RETAINED_UNTIL).and_then(|time| time_from_name(time));
    Some(Listed { key, version, retained_until })
}

impl Store for ApiStore {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        let Some(name) = key.name() else { return Ok(None) };
        with_timeout(self.api.get_opt(&name)).await.map_err(store_error)?.as_ref().map(parse).transpose()
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        let object = object(key, owner, book, version)?;
        Ok(with_timeout(self.put(&object)).await.map_err(store_error)?.resource_version().unwrap_or_default())
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        let selector = match selection {
            Selection::Open => format!("!{RETAINED_UNTIL}"),
            Selection::Closed => RETAINED_UNTIL.to_owned(),
        };
        let mut params = ListParams::default().labels(&selector).limit(PAGE_SIZE);
        params.continue_token = page;
        let found = with_timeout(self.api.list_metadata(&params)).await.map_err(store_error)?;
        let mut books = Vec::with_capacity(found.items.len());
        books.extend(found.items.iter().filter_map(listed));
        Ok(Page { books, next: found.metadata.continue_.filter(|token| !token.is_empty()) })
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        let Some(name) = key.name() else { return Ok(()) };
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match with_timeout(self.api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const BUDGET: &str = "7b1f4c1e-55a0-4f0e-9a0b-0d9d3c5c2f11";

    /// Runs `call` against an API server that expects these requests, in this order, and gives these answers.
    async fn against<T>(
        exchange: Vec<(Method, &'static str, Value)>,
        call: impl AsyncFnOnce(ApiStore) -> T,
    ) -> (T, Vec<Request<Body>>) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = tokio::spawn(async move {
            let mut received = Vec::new();
            for (method, path, answer) in exchange {
                let (request, respond) = handle.next_request().await.unwrap();
                assert_eq!((request.method(), request.uri().path()), (&method, path));
                received.push(request);
                respond.send_response(Response::new(Body::from(serde_json::to_vec(&answer).unwrap())));
            }
            received
        });
        let result = call(ApiStore::new(Client::new(service, "default"), "mcp-fleet-system")).await;
        (result, server.await.unwrap())
    }

    const COLLECTION: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/mcp-fleet-system/mcpledgers";

    fn metadata(name: &str) -> Value {
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": name, "resourceVersion": "7", "labels": {BUDGET_UID: BUDGET}},
        })
    }

    fn accept(request: &Request<Body>) -> &str {
        request.headers()["accept"].to_str().unwrap()
    }

    #[tokio::test]
    async fn a_list_is_paged_and_transfers_only_metadata() {
        let list = |items: Vec<Value>, next: &str| {
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                "metadata": {"continue": next}, "items": items})
        };
        let named = |suffix: &str| metadata(&format!("{BUDGET}-{suffix}"));
        let exchange = vec![
            (Method::GET, COLLECTION, list(vec![named("20261101t000000z"), named("by-hand")], "token")),
            (Method::GET, COLLECTION, list(vec![], "")),
        ];
        let (pages, requests) = against(exchange, async |store: ApiStore| {
            let first = store.list(Selection::Open, None).await.unwrap();
            let second = store.list(Selection::Open, first.next.clone()).await.unwrap();
            (first, second)
        })
        .await;
        let key = BookKey { budget_uid: BUDGET.into(), start: 1_793_491_200 };
        let listed = Listed { key, version: "7".into(), retained_until: None };
        assert_eq!(pages.0, Page { books: vec![listed], next: Some("token".into()) });
        assert_eq!(pages.1, Page { books: vec![], next: None });
        let queries: Vec<&str> = requests.iter().map(|request| request.uri().query().unwrap()).collect();
        assert_eq!(
            queries,
            [
                "&labelSelector=%21mcp-fleet.dev%2Fretained-until&limit=500",
                "&labelSelector=%21mcp-fleet.dev%2Fretained-until&limit=500&continue=token"
            ]
        );
        assert!(requests.iter().all(|request| accept(request).contains("as=PartialObjectMetadataList")));
    }

    #[tokio::test]
    async fn a_write_is_answered_with_metadata() {
        let key = BookKey { budget_uid: BUDGET.into(), start: 1_793_491_200 };
        let name = key.name().unwrap();
        let path: &'static str = format!("{COLLECTION}/{name}").leak();
        let exchange = vec![(Method::POST, COLLECTION, metadata(&name)), (Method::PUT, path, metadata(&name))];
        let owner = Owner {
            tenant: "acme".into(),
            tenant_uid: "t-1".into(),
            budget: "daily".into(),
            budget_uid: BUDGET.into(),
        };
        let book = Book::new(Span { start: key.start, end: key.start + 86_400 });
        let (versions, requests) = against(exchange, async |store: ApiStore| {
            let created = store.write(&key, &owner, &book, None).await.unwrap();
            (created, store.write(&key, &owner, &book, Some("7")).await.unwrap())
        })
        .await;
        assert_eq!(versions, ("7".to_owned(), "7".to_owned()));
        assert!(requests.iter().all(|request| accept(request) == METADATA_ONLY));
    }
}
