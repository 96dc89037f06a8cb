{{- define "stream-fp.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "stream-fp.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "stream-fp.labels" -}}
{{ include "stream-fp.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "stream-fp.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stream-fp.secretName" -}}
{{- if .Values.secret.existingName -}}
{{ .Values.secret.existingName }}
{{- else if .Values.secret.data -}}
{{ include "stream-fp.fullname" . }}
{{- end -}}
{{- end -}}

{{/* Numbers come as floating point from values: 1048576 must not become 1.048576e+06. */}}
{{- define "stream-fp.settings" -}}
{{- range $name, $value := .Values.settings }}
STREAM_FP_{{ upper $name }}: {{ if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ int64 $value | toString | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
STREAM_FP_MODEL_PATH: {{ .Values.model.path | quote }}
{{- end -}}

{{/* The first thing that is wrong with the values, in one line; nothing, if they can be used. */}}
{{- define "stream-fp.wrong" -}}
{{- $path := clean .Values.model.path -}}
{{- $mount := clean .Values.model.mountPath -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.kafka.ports -}}{{- $ports = append $ports (toString (int64 .)) -}}{{- end -}}
{{- $closed := "" -}}
{{- range splitList "," (toString .Values.settings.bootstrap_servers) -}}
{{- $port := regexFind "[0-9]+$" (trim .) -}}
{{- if and $port (not (has $port $ports)) -}}{{- $closed = trim . -}}{{- end -}}
{{- end -}}
{{- if not .Values.model.volume -}}
model.volume: expected the volume that holds the trained library, such as persistentVolumeClaim: {claimName: models}
{{- else if not (or (eq $path $mount) (hasPrefix (printf "%s/" $mount) $path)) -}}
model.path: expected a folder below model.mountPath, {{ .Values.model.mountPath }}, got {{ .Values.model.path }}
{{- else if and .Values.secret.existingName .Values.secret.data -}}
secret: expected either existingName or data, got both
{{- else if and .Values.networkPolicy.enabled $closed -}}
networkPolicy.kafka.ports: expected the port of {{ $closed }}, which is in settings.bootstrap_servers, got {{ join ", " $ports }}
{{- else if and .Values.autoscaling.enabled (gt (int64 .Values.autoscaling.minReplicas) (int64 .Values.autoscaling.maxReplicas)) -}}
autoscaling: expected minReplicas of at most maxReplicas, got {{ int64 .Values.autoscaling.minReplicas }} and {{ int64 .Values.autoscaling.maxReplicas }}
{{- end -}}
{{- end -}}
