// Writes what kube-scheduler of one version sends to an extender that is nodeCacheCapable: ExtenderArgs, marshalled as
// pkg/scheduler/extender.go does (encoding/json), for a shadow pod as that version's API types hold it.
package main

import (
	"encoding/json"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"
)

func main() {
	yes, grace := true, int64(0)
	none := v1.ResourceList{"migration.ms2m.io/checkpoint": resource.MustParse("0"), v1.ResourceCPU: resource.MustParse("50m")}
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-0-shadow-1", Namespace: "shop", UID: types.UID("0f9d1c3a-8f53-4d3c-9df3-0d6f6f1f2a11"), ResourceVersion: "4711",
			Labels: map[string]string{"migration.ms2m.io/migration": "m1", "migration.ms2m.io/role": "shadow"},
			Annotations: map[string]string{"migration.ms2m.io/ticket": "m1.1.shadow", "migration.ms2m.io/source-node": "source",
				"migration.ms2m.io/archive-bytes": "1073741824"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "migration.ms2m.io/v1alpha1", Kind: "StatefulMigration", Name: "web-0", UID: "m1", Controller: &yes}},
		},
		Spec: v1.PodSpec{
			SchedulerName: "shadow-scheduler", RestartPolicy: v1.RestartPolicyNever, TerminationGracePeriodSeconds: &grace,
			Containers: []v1.Container{{Name: "app", Image: "localhost/app:1", Env: []v1.EnvVar{{Name: "PASSWORD", Value: "not to be repeated"}},
				Resources: v1.ResourceRequirements{Requests: none, Limits: v1.ResourceList{"migration.ms2m.io/checkpoint": resource.MustParse("0")}}}},
			Tolerations: []v1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}},
		},
		Status: v1.PodStatus{Phase: v1.PodPending, QOSClass: v1.PodQOSBurstable,
			Conditions: []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"}}},
	}
	names := []string{"roomy", "full", "foreign"}
	body, err := json.Marshal(&extenderv1.ExtenderArgs{Pod: pod, NodeNames: &names})
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(body, '\n'))
}
