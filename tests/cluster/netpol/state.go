package main

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// state is everything that the rules depend on.
type state struct {
	// podCIDR is the address range of all pods.
	podCIDR    netip.Prefix
	pods       []pod
	namespaces map[string]labels.Set
	policies   []*networkingv1.NetworkPolicy
}

// pod is the part of a running pod that policies depend on. The pod has its own network.
type pod struct {
	namespace string
	labels    labels.Set
	// addresses are IPv4 addresses, because the cluster has no IPv6.
	addresses []netip.Addr
	// ports are the named ports of its containers.
	ports map[portName]uint16
}

// portName is the name of a container port. A name can be used once per protocol.
type portName struct {
	protocol corev1.Protocol
	name     string
}

// parsePod returns the part of a Pod that policies depend on, with the addresses from its
// status. It returns false for a pod that uses the network of the node, or that has ended and
// released its addresses.
func parsePod(object *corev1.Pod) (pod, bool) {
	ended := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
	if object.Spec.HostNetwork || ended {
		return pod{}, false
	}
	result := pod{namespace: object.Namespace, labels: object.Labels, ports: map[portName]uint16{}}
	// An init container with restartPolicy Always is a sidecar, which can serve ports as well.
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

// protocol returns the given protocol, or TCP by default.
func protocol(given *corev1.Protocol) corev1.Protocol {
	if given == nil || *given == "" {
		return corev1.ProtocolTCP
	}
	return *given
}

// podKey returns the key of a pod in maps and in requests of the CNI plugin.
func podKey(namespace, name string) string {
	return fmt.Sprintf("%s/%s", namespace, name)
}
