// Package main enforces NetworkPolicies on the local cluster's one node.
//
// It watches Pods, Namespaces and NetworkPolicies and keeps one nftables table that says the
// same as they do (rules.go). Called by the container runtime as a CNI plugin, it holds a new
// pod back until that table knows the pod (cni.go, fence.go), and the table drops what comes
// from or goes to a pod address it does not know. So a pod is never without its policies, not
// even for the moment between its start and the news of it.
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
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	pods := flag.String("pod-cidr", "10.244.0.0/16", "the addresses of all pods")
	socket := flag.String("socket", "", "where the CNI plugin finds this process")
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
	go enforcer.keep(ctx)
	return serveFence(ctx, socket, enforcer)
}
