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

// enforcer keeps the kernel's table in step with the API server and with the pods whose
// networks have just been made.
type enforcer struct {
	podCIDR    netip.Prefix
	factory    informers.SharedInformerFactory
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	// changed holds a token while there is something to apply.
	changed chan struct{}

	// mutex guards what follows, and with it the order in which tables are written.
	mutex sync.Mutex
	// addresses are what the CNI plugin has told: by pod, then by sandbox. They are known
	// seconds before the pod's status has them.
	addresses map[string]map[string][]netip.Addr
	// released are addresses that a removed sandbox has given back, while the status of its
	// pod may still name them.
	released map[netip.Addr]bool
	applied  string
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

// start begins to watch, and returns once the first table is in the kernel.
func (e *enforcer) start(ctx context.Context) error {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { e.signal() },
		UpdateFunc: func(any, any) { e.signal() },
		DeleteFunc: func(any) { e.signal() },
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

// keep applies every change until the context ends.
func (e *enforcer) keep(ctx context.Context) {
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
			// The old table stays in force meanwhile.
			log.Print(err)
			time.Sleep(time.Second)
			e.signal()
		}
	}
}

func (e *enforcer) signal() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// fence records a new sandbox's addresses and returns once the table knows them.
func (e *enforcer) fence(ctx context.Context, key, sandbox string, addresses []netip.Addr) error {
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

// release forgets a removed sandbox.
func (e *enforcer) release(key, sandbox string) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	for _, address := range e.addresses[key][sandbox] {
		e.released[address] = true
	}
	delete(e.addresses[key], sandbox)
	if len(e.addresses[key]) == 0 {
		delete(e.addresses, key)
	}
	e.signal()
}

// waitForPod waits until our watch has brought the pod, which kubelet has from its own watch.
func (e *enforcer) waitForPod(ctx context.Context, key string) error {
	namespace, name, _ := strings.Cut(key, "/")
	for {
		if _, err := e.pods.Pods(namespace).Get(name); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("pod %s is not known to the API server", key), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// apply writes the table if it has changed. The mutex has to be held.
func (e *enforcer) apply(ctx context.Context) error {
	state, err := e.observe()
	if err != nil {
		return err
	}
	script := compile(state)
	if script == e.applied {
		return nil
	}
	// One file is one transaction: the old table holds until the new one does.
	nft := exec.CommandContext(ctx, "nft", "--file", "-")
	nft.Stdin = strings.NewReader(script)
	if output, err := nft.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to write the table: %w: %s\n%s", err, output, script)
	}
	e.applied = script
	return nil
}

// observe collects the state from the watches and from what the CNI plugin has told.
func (e *enforcer) observe() (state, error) {
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
	owned := map[netip.Addr]bool{}
	add := func(pod pod) {
		// Were two pods to claim one address, which a status that lags behind can do, the
		// kernel would refuse the whole table.
		pod.addresses = slices.DeleteFunc(pod.addresses, func(address netip.Addr) bool { return owned[address] })
		for _, address := range pod.addresses {
			owned[address] = true
		}
		if len(pod.addresses) > 0 {
			result.pods = append(result.pods, pod)
		}
	}
	var lagging []pod
	for _, object := range pods {
		pod, networked := parsePod(object)
		told := e.addresses[podKey(object.Namespace, object.Name)]
		switch {
		case !networked:
		case len(told) > 0:
			pod.addresses = nil
			for _, sandbox := range sortedKeys(told) {
				pod.addresses = append(pod.addresses, told[sandbox]...)
			}
			add(pod)
		default:
			pod.addresses = slices.DeleteFunc(pod.addresses, func(address netip.Addr) bool { return e.released[address] })
			lagging = append(lagging, pod)
		}
	}
	for _, pod := range lagging {
		add(pod)
	}
	// Watches list in no order, and the same state has to give the same text.
	slices.SortFunc(result.pods, func(a, b pod) int { return a.addresses[0].Compare(b.addresses[0]) })
	result.policies, err = e.policies.List(labels.Everything())
	slices.SortFunc(result.policies, func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(podKey(a.Namespace, a.Name), podKey(b.Namespace, b.Name))
	})
	return result, err
}
