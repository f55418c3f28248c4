package main

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// state is everything that decides the rules.
type state struct {
	// podCIDR holds the addresses of all pods.
	podCIDR    netip.Prefix
	pods       []pod
	namespaces map[string]labels.Set
	policies   []*networkingv1.NetworkPolicy
}

// pod is what policies see of a running pod with a network of its own.
type pod struct {
	namespace string
	labels    labels.Set
	// addresses are IPv4: the cluster has no others.
	addresses []netip.Addr
	// ports are the named ones of its containers.
	ports map[portName]uint16
}

// portName names a container's port. The same name may be used once for each protocol.
type portName struct {
	protocol corev1.Protocol
	name     string
}

// parsePod takes from a Pod what policies see, with its addresses from its status. It says
// false for one that has no network of its own, or has ended and given its addresses back.
func parsePod(object *corev1.Pod) (pod, bool) {
	ended := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
	if object.Spec.HostNetwork || ended {
		return pod{}, false
	}
	result := pod{namespace: object.Namespace, labels: object.Labels, ports: map[portName]uint16{}}
	// An init container that restarts always is a sidecar, and serves like the others.
	for _, container := range slices.Concat(object.Spec.InitContainers, object.Spec.Containers) {
		for _, port := range container.Ports {
			if port.Name != "" {
				result.ports[portName{protocol(&port.Protocol), port.Name}] = uint16(port.ContainerPort)
			}
		}
	}
	for _, ip := range object.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil && address.Is4() {
			result.addresses = append(result.addresses, address)
		}
	}
	return result, true
}

// protocol is TCP where none is written.
func protocol(given *corev1.Protocol) corev1.Protocol {
	if given == nil || *given == "" {
		return corev1.ProtocolTCP
	}
	return *given
}

// podKey names a pod as kubelet and the CNI plugin do.
func podKey(namespace, name string) string {
	return fmt.Sprintf("%s/%s", namespace, name)
}
