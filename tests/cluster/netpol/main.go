// Package main enforces NetworkPolicies on the only node of the local cluster.
//
// It watches Pods, Namespaces and NetworkPolicies, and compiles them to one nftables table
// (enforcer.go, rules.go). The same program is also a CNI plugin: the container runtime calls
// it for each new pod, and it delays the pod until the table contains the pod's addresses
// (cni.go, server.go). The table drops packets from and to unknown pod addresses. So policies
// apply to a pod from its first packet, even before a watch has delivered the pod.
package main

import (
	"context"
	"flag"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	if command := os.Getenv("CNI_COMMAND"); command != "" {
		os.Exit(runPlugin(command, os.Stdin, os.Stdout))
	}
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig for the API server")
	pods := flag.String("pod-cidr", "10.244.0.0/16", "address range of all pods")
	socket := flag.String("socket", "", "path of the unix socket for the CNI plugin")
	flag.Parse()
	if err := run(*kubeconfig, *pods, *socket); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig, pods, socket string) error {
	cidr, err := netip.ParsePrefix(pods)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	enforcer := newEnforcer(client, cidr)
	if err := enforcer.start(ctx); err != nil {
		return err
	}
	go enforcer.run(ctx)
	return servePlugin(ctx, socket, enforcer)
}
