package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
)

// enforcer keeps the nftables table up to date with the API server, and with the pods whose
// networks the CNI plugins have just created.
type enforcer struct {
	podCIDR    netip.Prefix
	factory    informers.SharedInformerFactory
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	// changed contains a token while there are changes to apply.
	changed chan struct{}

	// mutex protects the fields below. Holding it while writing tables also keeps them in order.
	mutex sync.Mutex
	// addresses are those that the CNI plugin has reported, by pod and then by sandbox. They are
	// known seconds before they appear in the status of the pod.
	addresses map[string]map[string][]netip.Addr
	// released are addresses of removed sandboxes, which the status of a pod may still contain.
	released map[netip.Addr]bool
	// applied is the script of the table that is in the kernel.
	applied string
}

func newEnforcer(client kubernetes.Interface, podCIDR netip.Prefix) *enforcer {
	factory := informers.NewSharedInformerFactory(client, 0)
	return &enforcer{
		podCIDR:    podCIDR,
		factory:    factory,
		pods:       factory.Core().V1().Pods().Lister(),
		namespaces: factory.Core().V1().Namespaces().Lister(),
		policies:   factory.Networking().V1().NetworkPolicies().Lister(),
		changed:    make(chan struct{}, 1),
		addresses:  map[string]map[string][]netip.Addr{},
		released:   map[netip.Addr]bool{},
	}
}

// start starts the watches, and returns when the first table is in the kernel.
func (e *enforcer) start(ctx context.Context) error {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { e.triggerApply() },
		UpdateFunc: func(any, any) { e.triggerApply() },
		DeleteFunc: func(any) { e.triggerApply() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		e.factory.Core().V1().Pods().Informer(),
		e.factory.Core().V1().Namespaces().Informer(),
		e.factory.Networking().V1().NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	e.factory.Start(ctx.Done())
	for kind, synced := range e.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("failed to list %v", kind)
		}
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.apply(ctx)
}

// run applies every change until the context ends.
func (e *enforcer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.changed:
		}
		e.mutex.Lock()
		err := e.apply(ctx)
		e.mutex.Unlock()
		if err != nil && ctx.Err() == nil {
			// The old table stays in force until the retry succeeds.
			log.Print(err)
			time.Sleep(time.Second)
			e.triggerApply()
		}
	}
}

// triggerApply requests that run applies the current state.
func (e *enforcer) triggerApply() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// addSandbox records the addresses of a new sandbox, and returns when the table in the kernel
// contains them.
func (e *enforcer) addSandbox(ctx context.Context, key, sandbox string, addresses []netip.Addr) error {
	if err := e.waitForPod(ctx, key); err != nil {
		return err
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.addresses[key] == nil {
		e.addresses[key] = map[string][]netip.Addr{}
	}
	e.addresses[key][sandbox] = addresses
	for _, address := range addresses {
		delete(e.released, address)
	}
	return e.apply(ctx)
}

// removeSandbox removes the addresses of a removed sandbox.
func (e *enforcer) removeSandbox(key, sandbox string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	for _, address := range e.addresses[key][sandbox] {
		e.released[address] = true
	}
	delete(e.addresses[key], sandbox)
	if len(e.addresses[key]) == 0 {
		delete(e.addresses, key)
	}
	e.triggerApply()
}

// waitForPod waits until the watch of pods has delivered the pod. kubelet has its own watch,
// which may be ahead of this one.
func (e *enforcer) waitForPod(ctx context.Context, key string) error {
	namespace, name, _ := strings.Cut(key, "/")
	for {
		if _, err := e.pods.Pods(namespace).Get(name); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the watch has not delivered pod %s", key), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// apply writes the table if it has changed. The caller must hold the mutex.
func (e *enforcer) apply(ctx context.Context) error {
	state, err := e.collectState()
	if err != nil {
		return err
	}
	script := compile(state)
	if script == e.applied {
		return nil
	}
	// nft applies a file as one transaction: it replaces the old table at once or not at all.
	nft := exec.CommandContext(ctx, "nft", "--file", "-")
	nft.Stdin = strings.NewReader(script)
	if output, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to write the nftables table: %w: %s\n%s", err, output, script)
	}
	e.applied = script
	return nil
}

// collectState returns the state according to the watches and to the CNI plugin's reports.
func (e *enforcer) collectState() (state, error) {
	result := state{podCIDR: e.podCIDR, namespaces: map[string]labels.Set{}}
	namespaces, err := e.namespaces.List(labels.Everything())
	if err != nil {
		return state{}, err
	}
	for _, namespace := range namespaces {
		result.namespaces[namespace.Name] = namespace.Labels
	}
	pods, err := e.pods.List(labels.Everything())
	if err != nil {
		return state{}, err
	}
	assigned := map[netip.Addr]bool{}
	add := func(pod pod) {
		// The status of a pod can lag behind, so that two pods seem to have the same address. The
		// kernel would reject a table with that address twice.
		pod.addresses = slices.DeleteFunc(pod.addresses, func(address netip.Addr) bool { return assigned[address] })
		for _, address := range pod.addresses {
			assigned[address] = true
		}
		if len(pod.addresses) > 0 {
			result.pods = append(result.pods, pod)
		}
	}
	var unreported []pod
	for _, object := range pods {
		pod, networked := parsePod(object)
		reported := e.addresses[podKey(object.Namespace, object.Name)]
		switch {
		case !networked:
		case len(reported) > 0:
			pod.addresses = nil
			for _, sandbox := range sortedKeys(reported) {
				pod.addresses = append(pod.addresses, reported[sandbox]...)
			}
			add(pod)
		default:
			pod.addresses = slices.DeleteFunc(pod.addresses, func(address netip.Addr) bool { return e.released[address] })
			unreported = append(unreported, pod)
		}
	}
	// Addresses that the CNI plugin reported take precedence over those in a status.
	for _, pod := range unreported {
		add(pod)
	}
	// Listers return objects in random order, and the same state must give the same script.
	slices.SortFunc(result.pods, func(a, b pod) int { return a.addresses[0].Compare(b.addresses[0]) })
	result.policies, err = e.policies.List(labels.Everything())
	slices.SortFunc(result.policies, func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(podKey(a.Namespace, a.Name), podKey(b.Namespace, b.Name))
	})
	return result, err
}
