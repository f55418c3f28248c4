//! The ledger's store in a cluster: `MCPLedger` objects in the operator's namespace.
//!
//! A book is transferred whole only when it is read, and to the API server when it is written. Lists and the answers to
//! writes contain only metadata.

use std::sync::Arc;

use kube::api::{DeleteParams, ListParams, PartialObjectMeta, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource, ResourceExt};
use mcp_fleet_core::ledger::book::Book;
use mcp_fleet_core::ledger::record::Owner;
use mcp_fleet_core::ledger::store::{
    BookKey, Page, RETAINED_UNTIL, Selection, StoreError, StoredBook, listed, object, parse,
};
use mcp_fleet_core::ledger::{AnyStore, Ledger, Store};
use mcp_fleet_crds::MCPLedger;

use crate::error::boxed;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::timeout::with_timeout;
use crate::retry::until_success;

/// Number of books in one page of a list. The metadata of one book has about 1 KiB.
const PAGE_SIZE: u32 = 500;
/// Asks the API server to answer a write with metadata only.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Opens the ledger in `namespace`, the operator's namespace: reads every book, and retries until that succeeds.
pub(crate) async fn open(client: Client, namespace: &str) -> Arc<Ledger<AnyStore>> {
    let ledger = Arc::new(Ledger::unread(AnyStore::new(ApiStore::new(client, namespace))));
    until_success("read the ledger", async || ledger.load().await).await;
    ledger
}

/// Stores books in the API server.
#[derive(Clone, Debug)]
struct ApiStore {
    api: Api<MCPLedger>,
    /// Builds requests to the collection of `api`.
    request: Request,
}

impl ApiStore {
    /// Creates a store in `namespace`, the operator's namespace.
    fn new(client: Client, namespace: &str) -> Self {
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

fn store_error(error: &kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict,
        _ => StoreError::Unavailable(boxed(error)),
    }
}

impl Store for ApiStore {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        let Some(name) = key.name() else { return Ok(None) };
        with_timeout(self.api.get_opt(&name))
            .await
            .map_err(|error| store_error(&error))?
            .as_ref()
            .map(parse)
            .transpose()
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        let object = object(key, owner, book, version)?;
        Ok(with_timeout(self.put(&object))
            .await
            .map_err(|error| store_error(&error))?
            .resource_version()
            .unwrap_or_default())
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        let selector = match selection {
            Selection::Open => format!("!{RETAINED_UNTIL}"),
            Selection::Closed => RETAINED_UNTIL.to_owned(),
        };
        let mut params = ListParams::default().labels(&selector).limit(PAGE_SIZE);
        params.continue_token = page;
        let found = with_timeout(self.api.list_metadata(&params)).await.map_err(|error| store_error(&error))?;
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
            Err(error) => Err(store_error(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use http::{Method, Request, Response};
    use kube::client::Body;
    use mcp_fleet_core::ledger::period::Span;
    use mcp_fleet_core::ledger::store::{BUDGET_UID, Listed};
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
