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

{{/* What a schema cannot say. */}}
{{- define "stream-fp.check" -}}
{{- if not .Values.model.volume -}}
{{- fail "model.volume: expected the volume that holds the trained library, such as persistentVolumeClaim: {claimName: models}" -}}
{{- end -}}
{{- if not (hasPrefix (printf "%s/" (trimSuffix "/" .Values.model.mountPath)) .Values.model.path) -}}
{{- fail (printf "model.path: expected a folder below model.mountPath, %s, got %s" .Values.model.mountPath .Values.model.path) -}}
{{- end -}}
{{- if and .Values.secret.data .Values.secret.existingName -}}
{{- fail "secret: expected existingName or data, got both" -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas: expected at most maxReplicas, %d, got %d" (int .maxReplicas) (int .minReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
